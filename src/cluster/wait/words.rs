//! What a daemon that crashed said: the end of its log, without Go's stack.

/// Lines that are shown.
const SHOWN: usize = 8;

/// Returns the last lines of a log. Frames of a stack (a function's line, then its file's after a tab) are left out:
/// buildkitd prints them after the error, and there are more of them than lines fit.
pub(super) fn last(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    // The last frame of a Go program is in assembly.
    let is_place = |line: &str| line.starts_with('\t') && (line.contains(".go:") || line.contains(".s:"));
    let is_frame = |at: usize| is_place(lines[at]) || lines.get(at + 1).is_some_and(|next| is_place(next));
    let said: Vec<&str> = (0..lines.len())
        .filter(|&at| !is_frame(at))
        .map(|at| lines[at])
        .filter(|line| !line.is_empty())
        .collect();
    said[said.len().saturating_sub(SHOWN)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::last;

    #[test]
    fn a_stack_does_not_hide_the_error() {
        let log = "level=info msg=\"auto snapshotter\"\nbuildkitd: mkdir /proc/x: no such file\n\
                   github.com/urfave/cli/v3.(*Command).Run\n\
                   \tgithub.com/urfave/cli/v3@v3.9.0/command_run.go:93\nmain.main\n\
                   \tgithub.com/moby/buildkit/cmd/buildkitd/main.go:488\nruntime.goexit\n\truntime/asm_amd64.s:1771\n";
        assert_eq!(last(log), "level=info msg=\"auto snapshotter\"\nbuildkitd: mkdir /proc/x: no such file");
    }

    #[test]
    fn only_the_end_is_shown() {
        let log = (0..20).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
        assert_eq!(last(&log), "12\n13\n14\n15\n16\n17\n18\n19");
        assert_eq!(last("\n\n"), "");
    }
}
