//! Programs of other architectures, without a compiler for them: each writes `built on ARCH` to `/built` and to
//! standard output, and ends.

/// Runs the program of the platform that is built, from `probe-ARCH` in the context.
pub const DOCKERFILE: &str =
    "FROM scratch\nARG TARGETARCH\nCOPY probe-$TARGETARCH /probe\nRUN [\"/probe\"]\nCMD [\"/probe\"]\n";

/// Machine code, and the number that an ELF header has for the machine. After the code stand the text and the path.
const AMD64: (u16, &[u8]) = (
    62,
    &[
        0xb8, 0x02, 0x00, 0x00, 0x00, // mov eax, 2: open
        0x48, 0x8d, 0x3d, 0x45, 0x00, 0x00, 0x00, // lea rdi, [rip+path]
        0xbe, 0x41, 0x02, 0x00, 0x00, // mov esi, O_WRONLY|O_CREAT|O_TRUNC
        0xba, 0xa4, 0x01, 0x00, 0x00, // mov edx, 0644
        0x0f, 0x05, // syscall
        0x89, 0xc7, // mov edi, eax
        0xb8, 0x01, 0x00, 0x00, 0x00, // mov eax, 1: write
        0x48, 0x8d, 0x35, 0x1c, 0x00, 0x00, 0x00, // lea rsi, [rip+text]
        0xba, 0x0f, 0x00, 0x00, 0x00, // mov edx, 15
        0x0f, 0x05, // syscall
        0xb8, 0x01, 0x00, 0x00, 0x00, // mov eax, 1: write
        0xbf, 0x01, 0x00, 0x00, 0x00, // mov edi, 1
        0x0f, 0x05, // syscall
        0xb8, 0x3c, 0x00, 0x00, 0x00, // mov eax, 60: exit
        0x31, 0xff, // xor edi, edi
        0x0f, 0x05, // syscall
    ],
);
const ARM64: (u16, &[u8]) = (
    183,
    &[
        0x60, 0x0c, 0x80, 0x92, // mov x0, #-100: AT_FDCWD
        0x21, 0x02, 0x00, 0x70, // adr x1, path
        0x22, 0x48, 0x80, 0xd2, // mov x2, O_WRONLY|O_CREAT|O_TRUNC
        0x83, 0x34, 0x80, 0xd2, // mov x3, 0644
        0x08, 0x07, 0x80, 0xd2, // mov x8, 56: openat
        0x01, 0x00, 0x00, 0xd4, // svc 0
        0x21, 0x01, 0x00, 0x10, // adr x1, text
        0xe2, 0x01, 0x80, 0xd2, // mov x2, 15
        0x08, 0x08, 0x80, 0xd2, // mov x8, 64: write
        0x01, 0x00, 0x00, 0xd4, // svc 0
        0x20, 0x00, 0x80, 0xd2, // mov x0, 1
        0x01, 0x00, 0x00, 0xd4, // svc 0
        0x00, 0x00, 0x80, 0xd2, // mov x0, 0
        0xa8, 0x0b, 0x80, 0xd2, // mov x8, 93: exit
        0x01, 0x00, 0x00, 0xd4, // svc 0
    ],
);

/// Returns a static executable for `amd64` or `arm64`.
pub fn program(architecture: &str) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let (machine, code) = match architecture {
        "amd64" => AMD64,
        "arm64" => ARM64,
        other => panic!("no program for {other}"),
    };
    let content = [code, format!("built on {architecture}\n/built\0").as_bytes()].concat();
    let size = HEADERS + content.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let halves =
        |elf: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|it| elf.extend(it.to_le_bytes()));
    let words = |elf: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|it| elf.extend(it.to_le_bytes()));
    let longs = |elf: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|it| elf.extend(it.to_le_bytes()));
    // An executable of version 1: entry, where the segments are described, no sections.
    halves(&mut elf, &[2, machine]);
    words(&mut elf, &[1]);
    longs(&mut elf, &[BASE + HEADERS, 64, 0]);
    words(&mut elf, &[0]);
    halves(&mut elf, &[64, 56, 1, 0, 0, 0]);
    // One segment, readable and executable: the whole file.
    words(&mut elf, &[1, 5]);
    longs(&mut elf, &[0, BASE, BASE, size, size, 0x1_0000]);
    elf.extend(content);
    elf
}
