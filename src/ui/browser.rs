//! The person's browser.

/// Opens a page, in this browser if there is one of that name. That it didn't open is nothing to tell of: whoever asks
/// for it has shown the address, too.
pub fn open(page: &str, browser: Option<&str>) {
    // BROWSER may also be a list, or a command with a place for the page, which are for others to understand.
    let plain = browser.filter(|name| !name.contains([':', ' ', '%']));
    let opened = plain.is_some_and(|name| open::with_detached(page, name).is_ok());
    if !opened {
        let _shown_anyway = open::that_detached(page);
    }
}
