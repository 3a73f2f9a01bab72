//! Lists and examines directories ahead of the walk, on a few threads, without changing its order.
//!
//! The unit of work is a page: up to [`PAGE`] entries of one directory. Whoever gets to a page first does it: a
//! thread of the pool, or the walk itself, which therefore never waits for work that nobody has begun. How many
//! pages may be in hand is bounded, and with it the memory and the open directories.

use super::error::SyncError;
use super::filter::{Filter, Inherited};
use super::tree::{Meta, Tree};
use rustix::fs::FileType;
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Entries in a page.
const PAGE: usize = 256;

/// Pages that are begun or done ahead of the walk.
const AHEAD: usize = 64;

/// How long the walk waits for a page before it makes use of the pause.
const PATIENCE: Duration = Duration::from_millis(2);

/// The entries of a directory that are sent or looked into, sorted by the bytes of their names.
#[derive(Debug)]
struct Listing {
    /// From the root, empty for the root itself.
    path: Vec<u8>,
    names: Vec<u8>,
    items: Vec<Item>,
    /// By index into `items`; empty when nothing is filtered.
    inherited: HashMap<u32, Inherited>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    start: u32,
    length: u16,
    keep: bool,
    descend: bool,
}

impl Listing {
    fn name(&self, item: &Item) -> &[u8] {
        &self.names[item.start as usize..][..usize::from(item.length)]
    }
}

/// Some entries of a directory, in order.
#[derive(Debug)]
pub(super) struct Page {
    listing: Arc<Listing>,
    /// Kept while more pages follow.
    directory: Option<Arc<OwnedFd>>,
    from: usize,
    entries: Vec<Entry>,
    /// What ended the page early.
    pub(super) failed: Option<SyncError>,
}

#[derive(Debug)]
struct Entry {
    /// `None` if it is not sent by itself.
    meta: Option<Meta>,
    child: Child,
}

#[derive(Debug)]
enum Child {
    None,
    Unplanned,
    Planned(Arc<Job>),
}

impl Page {
    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the name of an entry and what its STAT says, if it is sent by itself.
    pub(super) fn entry(&self, index: usize) -> (&[u8], Option<&Meta>) {
        (self.listing.name(&self.listing.items[self.from + index]), self.entries[index].meta.as_ref())
    }

    fn end(&self) -> usize {
        self.from + self.entries.len()
    }

    fn child_job(&self, index: usize, pooled: bool) -> Arc<Job> {
        let at = self.from + index;
        let item = &self.listing.items[at];
        let name = self.listing.name(item);
        let mut path = self.listing.path.clone();
        push_name(&mut path, name);
        let inherited = self.listing.inherited.get(&(at as u32)).cloned().unwrap_or_default();
        Arc::new(Job::new(Source::Directory { path, inherited, kept: item.keep }, pooled))
    }
}

/// Appends a name to a path from the root.
pub(super) fn push_name(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// A page that somebody must make.
#[derive(Debug)]
pub(super) struct Job {
    source: Source,
    /// It counts against [`AHEAD`].
    pooled: bool,
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug)]
enum Source {
    Directory { path: Vec<u8>, inherited: Inherited, kept: bool },
    More { listing: Arc<Listing>, directory: Arc<OwnedFd>, from: usize },
}

#[derive(Debug)]
enum State {
    Waiting,
    Running,
    Done(Page),
    Taken,
}

impl Job {
    fn new(source: Source, pooled: bool) -> Self {
        Self { source, pooled, state: Mutex::new(State::Waiting), done: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no page panics")
    }

    /// Makes the page if nobody else has begun it.
    fn attempt(&self, pool: &Arc<Pool>) {
        {
            let mut state = self.lock();
            if !matches!(*state, State::Waiting) {
                return;
            }
            *state = State::Running;
        }
        let mut page = pool.make(&self.source);
        pool.plan(&mut page, 0, Place::Next);
        *self.lock() = State::Done(page);
        self.done.notify_one();
    }
}

/// The pages that follow within one directory.
#[derive(Debug, Default)]
pub(super) struct Following {
    jobs: VecDeque<Arc<Job>>,
    planned_to: usize,
}

/// The threads and what waits for them.
#[derive(Debug)]
pub(super) struct Pool {
    tree: Arc<Tree>,
    filter: Arc<Filter>,
    most_threads: usize,
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// The last comes first in the walk's order.
    jobs: VecDeque<Arc<Job>>,
    /// Pages planned and not taken.
    planned: usize,
    threads: Vec<crate::task::Task<()>>,
    idle: usize,
    closed: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Before all else that waits.
    Next,
    /// After it.
    Last,
}

/// Ends the pool's threads when dropped.
pub(super) struct PoolGuard(Arc<Pool>);

impl std::ops::Deref for PoolGuard {
    type Target = Arc<Pool>;

    fn deref(&self) -> &Arc<Pool> {
        &self.0
    }
}

impl Drop for PoolGuard {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.closed = true;
        queue.jobs.clear();
        drop(queue);
        self.0.work.notify_all();
    }
}

impl Pool {
    /// Returns a pool of up to so many threads; none is started before there is work for it.
    pub(super) fn open(tree: Arc<Tree>, filter: Arc<Filter>, most_threads: usize) -> PoolGuard {
        PoolGuard(Arc::new(Self {
            tree,
            filter,
            most_threads,
            queue: Mutex::default(),
            work: Condvar::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no thread panics with the queue")
    }

    /// Returns the root's first page.
    pub(super) fn root(self: &Arc<Self>) -> Page {
        let source = Source::Directory { path: Vec::new(), inherited: self.filter.root(), kept: true };
        let mut page = self.make(&source);
        self.plan(&mut page, 0, Place::Next);
        page
    }

    /// Returns the first page of the directory at an entry, `None` if it is not looked into. `pause` is called
    /// if that takes a while.
    pub(super) fn enter<E>(
        self: &Arc<Self>,
        page: &mut Page,
        index: usize,
        pause: impl FnMut() -> Result<(), E>,
    ) -> Result<Option<Page>, E> {
        let job = match std::mem::replace(&mut page.entries[index].child, Child::None) {
            Child::None => return Ok(None),
            Child::Unplanned => page.child_job(index, false),
            Child::Planned(job) => job,
        };
        // Taken pages make room for new plans; do it now and then rather than each time.
        if self.lock().planned < AHEAD / 2 {
            self.plan(page, index + 1, Place::Last);
        }
        self.take(&job, pause).map(Some)
    }

    /// Returns the page that follows within the directory, `None` after the last.
    pub(super) fn next<E>(
        self: &Arc<Self>,
        page: &Page,
        following: &mut Following,
        pause: impl FnMut() -> Result<(), E>,
    ) -> Result<Option<Page>, E> {
        let Some(directory) = &page.directory else { return Ok(None) };
        following.planned_to = following.planned_to.max(page.end());
        let total = page.listing.items.len();
        loop {
            let pooled = !following.jobs.is_empty();
            let room = !pooled || (following.jobs.len() < AHEAD / 8 && self.reserve(1) == 1);
            if following.planned_to >= total || !room {
                break;
            }
            let (listing, directory) = (Arc::clone(&page.listing), Arc::clone(directory));
            let source = Source::More { listing, directory, from: following.planned_to };
            let job = Arc::new(Job::new(source, pooled));
            if pooled {
                self.offer([Arc::clone(&job)], Place::Last);
            }
            following.jobs.push_back(job);
            following.planned_to = total.min(following.planned_to + PAGE);
        }
        following.jobs.pop_front().map(|job| self.take(&job, pause)).transpose()
    }

    fn take<E>(
        self: &Arc<Self>,
        job: &Arc<Job>,
        mut pause: impl FnMut() -> Result<(), E>,
    ) -> Result<Page, E> {
        job.attempt(self);
        let mut state = job.lock();
        let mut paused = false;
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Done(page) => {
                    drop(state);
                    if job.pooled {
                        self.lock().planned -= 1;
                    }
                    return Ok(page);
                }
                running => *state = running,
            }
            if paused {
                state = job.done.wait(state).expect("no page panics");
            } else {
                let waited = job.done.wait_timeout(state, PATIENCE).expect("no page panics");
                paused = waited.1.timed_out();
                if paused {
                    drop(waited);
                    pause()?;
                    state = job.lock();
                } else {
                    state = waited.0;
                }
            }
        }
    }

    /// Takes up to so many places for pages ahead.
    fn reserve(&self, wanted: usize) -> usize {
        let mut queue = self.lock();
        let granted = wanted.min(AHEAD.saturating_sub(queue.planned));
        queue.planned += granted;
        granted
    }

    /// Plans the directories of a page, from an entry on, as far as there is room.
    fn plan(self: &Arc<Self>, page: &mut Page, from: usize, place: Place) {
        let wanted = |entry: &Entry| matches!(entry.child, Child::Unplanned);
        let count = page.entries[from.min(page.len())..].iter().filter(|entry| wanted(entry)).count();
        let granted = if count == 0 { 0 } else { self.reserve(count) };
        if granted == 0 {
            return;
        }
        let mut jobs = Vec::with_capacity(granted);
        for index in from..page.len() {
            if jobs.len() < granted && wanted(&page.entries[index]) {
                let job = page.child_job(index, true);
                page.entries[index].child = Child::Planned(Arc::clone(&job));
                jobs.push(job);
            }
        }
        self.offer(jobs, place);
    }

    fn offer(self: &Arc<Self>, jobs: impl IntoIterator<Item = Arc<Job>>, place: Place) {
        let mut queue = self.lock();
        if queue.closed {
            return;
        }
        if place == Place::Next {
            let at = queue.jobs.len();
            queue.jobs.extend(jobs);
            queue.jobs.make_contiguous()[at..].reverse();
        } else {
            for job in jobs {
                queue.jobs.push_front(job);
            }
        }
        // The walk makes pages itself without taking them out of here.
        if queue.jobs.len() > 2 * AHEAD {
            queue.jobs.retain(|job| matches!(*job.lock(), State::Waiting));
        }
        let (idle, threads) = (queue.idle, queue.threads.len());
        if idle == 0 && threads < self.most_threads && queue.jobs.len() > 2 * threads {
            let pool = Arc::clone(self);
            queue.threads.push(crate::task::spawn_blocking(move || pool.work()));
        }
        drop(queue);
        if idle > 0 {
            self.work.notify_one();
        }
    }

    /// What a thread does until the pool is closed.
    fn work(self: &Arc<Self>) {
        let mut queue = self.lock();
        while !queue.closed {
            if let Some(job) = queue.jobs.pop_back() {
                drop(queue);
                job.attempt(self);
                queue = self.lock();
            } else {
                queue.idle += 1;
                queue = self.work.wait(queue).expect("no thread panics with the queue");
                queue.idle -= 1;
            }
        }
    }

    fn make(&self, source: &Source) -> Page {
        match source {
            Source::Directory { path, inherited, kept } => self.first_page(path, inherited, *kept),
            Source::More { listing, directory, from } => {
                self.examine(Arc::clone(listing), Arc::clone(directory), *from)
            }
        }
    }

    fn first_page(&self, path: &[u8], inherited: &Inherited, kept: bool) -> Page {
        let from_root = if path.is_empty() { b"." } else { path };
        match self.list(from_root, path, inherited) {
            Ok((listing, directory)) => self.examine(Arc::new(listing), Arc::new(directory), 0),
            Err(failed) => {
                let forgiven = match &failed {
                    // Removed or replaced since its name was read: a tree in which it is empty is as good.
                    (_, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => !path.is_empty(),
                    // It was only looked into in case something inside is included.
                    (_, Errno::ACCESS) => !kept,
                    _ => false,
                };
                let failed = (!forgiven).then(|| self.tree.error(failed.0, path, failed.1));
                let listing = Listing {
                    path: path.to_vec(),
                    names: Vec::new(),
                    items: Vec::new(),
                    inherited: HashMap::new(),
                };
                Page { listing: Arc::new(listing), directory: None, from: 0, entries: Vec::new(), failed }
            }
        }
    }

    fn list(
        &self,
        from_root: &[u8],
        path: &[u8],
        inherited: &Inherited,
    ) -> Result<(Listing, OwnedFd), (&'static str, Errno)> {
        let directory = self.tree.directory(from_root).map_err(|errno| ("open", errno))?;
        let mut names = Vec::new();
        let mut items = Vec::new();
        Tree::list(directory.as_fd(), |entry| {
            let start = names.len() as u32;
            names.extend_from_slice(entry.name);
            // Not every file system tells types in listings.
            let kind = match entry.kind {
                FileType::Unknown => Tree::kind(directory.as_fd(), entry.name).unwrap_or(FileType::Unknown),
                kind => kind,
            };
            let descend = kind == FileType::Directory;
            items.push(Item { start, length: entry.name.len() as u16, keep: true, descend });
        })
        .map_err(|errno| ("list", errno))?;
        let mut listing = Listing { path: path.to_vec(), names, items, inherited: HashMap::new() };
        let names = &listing.names;
        let name = |item: &Item| &names[item.start as usize..][..usize::from(item.length)];
        listing.items.sort_unstable_by(|one, other| name(one).cmp(name(other)));
        if !self.filter.is_open() {
            self.judge(&mut listing, inherited);
        }
        Ok((listing, directory))
    }

    /// Leaves in the listing what is sent or looked into.
    fn judge(&self, listing: &mut Listing, inherited: &Inherited) {
        let mut path = listing.path.clone();
        let mut matched = Inherited::default();
        let mut remaining = Vec::with_capacity(listing.items.len());
        for item in &listing.items {
            path.truncate(listing.path.len());
            push_name(&mut path, listing.name(item));
            let verdict = self.filter.judge(&path, item.descend, inherited, &mut matched);
            if verdict.descend {
                listing.inherited.insert(remaining.len() as u32, matched.clone());
            }
            if verdict.keep || verdict.descend {
                remaining.push(Item { keep: verdict.keep, descend: verdict.descend, ..*item });
            }
        }
        listing.items = remaining;
    }

    fn examine(&self, listing: Arc<Listing>, directory: Arc<OwnedFd>, from: usize) -> Page {
        let to = listing.items.len().min(from + PAGE);
        let mut entries = Vec::with_capacity(to - from);
        let mut failed = None;
        let mut path = listing.path.clone();
        for item in &listing.items[from..to] {
            let name = listing.name(item);
            path.truncate(listing.path.len());
            push_name(&mut path, name);
            let child = if item.descend { Child::Unplanned } else { Child::None };
            if !item.keep {
                entries.push(Entry { meta: None, child });
                continue;
            }
            match self.tree.examine(directory.as_fd(), &path, name) {
                Ok(meta) => {
                    let child = if meta.is_directory() { child } else { Child::None };
                    entries.push(Entry { meta: Some(meta), child });
                }
                // Removed since its name was read: as if it had never been.
                Err(Errno::NOENT) => entries.push(Entry { meta: None, child: Child::None }),
                Err(errno) => {
                    failed = Some(self.tree.error("examine", &path, errno));
                    break;
                }
            }
        }
        let more = failed.is_none() && to < listing.items.len();
        Page { listing, directory: more.then_some(directory), from, entries, failed }
    }
}
