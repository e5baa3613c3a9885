//! Archives that are good, and every way in which one is not.

use proptest::prelude::*;

use super::*;

/// A tar from (kind, path, link or content).
fn tar(entries: &[(u8, &str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, path, content) in entries {
        let link = matches!(kind, b'1' | b'2');
        let size = if link { 0 } else { content.len() };
        let mut block = vec![0u8; 512];
        block[..path.len()].copy_from_slice(path.as_bytes());
        block[100..107].copy_from_slice(b"0000644");
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[156] = *kind;
        if link {
            block[157..157 + content.len()].copy_from_slice(content);
        }
        block[257..263].copy_from_slice(b"ustar\0");
        seal(&mut block);
        out.extend_from_slice(&block);
        if !link {
            out.extend_from_slice(content);
            out.resize(out.len().div_ceil(512) * 512, 0);
        }
    }
    out.resize(out.len() + 1_024, 0);
    out
}

fn seal(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn image() -> Vec<(u8, &'static str, &'static [u8])> {
    vec![
        (b'5', "abc/", b""),
        (b'0', "abc/layer.tar", &[7; 3_000]),
        (b'2', "def/layer.tar", b"../abc/layer.tar"),
        (b'0', "manifest.json", b"[]"),
    ]
}

fn check(archive: &[u8]) -> Result<(), BadArchive> {
    cut(archive, archive.len().max(1))
}

fn cut(archive: &[u8], piece: usize) -> Result<(), BadArchive> {
    let mut checker = Checker::new(archive.len() as u64);
    for piece in archive.chunks(piece) {
        checker.take(piece)?;
    }
    checker.finish()
}

#[test]
fn what_docker_and_oci_writers_make_is_taken() {
    assert_eq!(check(&tar(&image())), Ok(()));
    let oci: &[(u8, &str, &[u8])] =
        &[(b'0', "oci-layout", b"{}"), (b'0', "blobs/sha256/x", b"x"), (b'0', "index.json", b"{}")];
    assert_eq!(check(&tar(oci)), Ok(()));
    let mut padded = tar(&image());
    padded.resize(padded.len() + 8_192, 0);
    assert_eq!(check(&padded), Ok(()));
}

#[test]
fn an_archive_that_ends_too_early_is_cut_off_wherever_it_ends() {
    let whole = tar(&image());
    for end in 0..whole.len() {
        // As it is announced: the size of the part, or of the whole.
        assert!(check(&whole[..end]).is_err(), "a part of {end} bytes was taken");
        let mut checker = Checker::new(whole.len() as u64);
        checker.take(&whole[..end]).unwrap();
        // The last of the zeros may be missing to the end, not to the mark.
        assert!(checker.finish().is_err(), "{end}");
    }
}

#[test]
fn paths_and_links_stay_inside() {
    let refused = |kind: u8, path: &str, link: &str| {
        let mut entries = image();
        entries.insert(0, (kind, path, link.as_bytes()));
        check(&tar(&entries)).expect_err(&format!("{path} -> {link}")).to_string()
    };
    assert!(refused(b'0', "/etc/passwd", "").contains("absolute"));
    assert!(refused(b'0', "../x", "").contains("leaves"));
    assert!(refused(b'0', "a/../../x", "").contains("leaves"));
    assert!(refused(b'5', "a/..", "").contains("leaves"));
    assert!(refused(b'2', "a", "/etc/passwd").contains("leaves"));
    assert!(refused(b'2', "a", "../x").contains("leaves"));
    assert!(refused(b'2', "a/b", "../../x").contains("leaves"));
    assert!(refused(b'2', "a/b", "c/../../../x").contains("leaves"));
    assert!(refused(b'1', "a", "../x").contains("leaves"));
    assert!(refused(b'1', "a", "/x").contains("absolute"));
    assert!(refused(b'3', "a", "").contains("device"));
    assert!(refused(b'6', "a", "").contains("device"));
    assert!(refused(b'Z', "a", "").contains("unknown"));
    assert!(refused(b'5', "a", "content").contains("content"));
}

#[test]
fn a_long_name_is_read_like_a_short_one() {
    let long = |kind: u8, record: &[u8], inner: (u8, &'static str)| {
        let mut entries = image();
        let record: &'static [u8] = Box::leak(record.to_vec().into_boxed_slice());
        entries.insert(0, (kind, "././@LongLink", record));
        entries.insert(1, (inner.0, inner.1, b""));
        check(&tar(&entries))
    };
    let file = (b'0', "short");
    assert_eq!(long(b'L', b"fine/name\0", file), Ok(()));
    assert!(long(b'L', b"../name\0", file).is_err());
    assert!(long(b'K', b"../../name\0", (b'2', "a/b")).is_err());
    assert_eq!(long(b'x', b"13 path=a/b/\n", file), Ok(()));
    assert!(long(b'x', b"14 path=/etc/\n", file).is_err());
    assert!(long(b'x', b"15 linkpath=/a\n", (b'2', "a")).is_err());
    assert!(long(b'x', b"24 GNU.sparse.major=123\n", file).is_err());
    assert!(long(b'x', b"nonsense", file).is_err());
    assert!(long(b'g', b"13 path=a/b/\n", file).is_err());
    assert_eq!(long(b'g', b"13 comment=x\n", file), Ok(()));
    assert!(long(b'x', b"31 size=99999999999999999999999\n", file).is_err());
}

/// What Go's reader, the engine's, would not take as it was checked here.
#[test]
fn what_readers_take_in_different_ways_is_refused() {
    type Records<'a> = &'a [(u8, &'static [u8])];
    let with = |records: Records<'_>, inner: (u8, &'static str, &'static [u8])| {
        let mut entries = image();
        let records = records.iter().map(|(kind, record)| (*kind, "record", *record));
        let records: Vec<_> = records.chain([inner]).collect();
        entries.splice(0..0, records);
        check(&tar(&entries))
    };
    let file = (b'0', "short", &b""[..]);
    let link = (b'2', "a/b", &b"c"[..]);
    let long: (u8, &[u8]) = (b'L', b"../../x\0");
    let path: (u8, &[u8]) = (b'x', b"11 path=ok\n");
    let refused = |records: Records<'_>, inner, why: &str| {
        let told = with(records, inner).expect_err(why).to_string();
        assert!(told.contains(why), "{told}");
    };
    // Go prefers GNU's, whichever comes last; both orders, and both innocent.
    refused(&[long, path], file, "twice");
    refused(&[(b'L', b"fine\0"), path], file, "twice");
    refused(&[path, (b'L', b"fine\0")], file, "twice");
    refused(&[(b'K', b"../../../x\0"), (b'x', b"15 linkpath=ok\n")], link, "twice");
    refused(&[(b'x', b"15 linkpath=ok\n"), (b'K', b"ok\0")], link, "twice");
    refused(&[(b'x', b"11 path=ok\n11 path=ok\n")], file, "twice");
    refused(&[(b'x', b"10 size=0\n10 size=0\n")], file, "twice");
    // A second record of a kind takes all that the first said away, also when
    // it says nothing.
    refused(&[path, (b'x', b"13 comment=x\n")], file, "two extension records");
    refused(&[path, (b'x', b"")], file, "two extension records");
    refused(&[(b'L', b"ok\0"), (b'L', b"")], file, "two extension records");
    refused(&[(b'K', b"ok\0"), (b'K', b"")], link, "two extension records");
    // Together they say different things, and the next entry begins anew.
    assert_eq!(with(&[(b'L', b"fine\0"), (b'x', b"15 linkpath=ok\n")], link), Ok(()));
    let mut twice = image();
    for at in [0, 2] {
        twice.insert(at, path_of("11 path=ok\n"));
    }
    assert_eq!(check(&tar(&twice)), Ok(()));
}

fn path_of(record: &'static str) -> (u8, &'static str, &'static [u8]) {
    (b'x', "record", record.as_bytes())
}

/// The field that a prefix is in, as other formats use it.
#[test]
fn a_beginning_of_a_path_hides_in_no_other_field() {
    let made = |magic: &[u8], prefix: &[u8], trailer: &[u8]| {
        let mut archive = tar(&image());
        let block = &mut archive[..512];
        block[257..257 + magic.len()].copy_from_slice(magic);
        block[345..345 + prefix.len()].copy_from_slice(prefix);
        block[508..508 + trailer.len()].copy_from_slice(trailer);
        seal(block);
        check(&archive)
    };
    assert_eq!(made(b"ustar\x0000", b"fine", b""), Ok(()));
    assert!(made(b"ustar\x0000", b"../fine", b"").is_err());
    // GNU's times; what is none makes Go take the field for a beginning.
    assert_eq!(made(b"ustar  \0", b"00000000001\x0000000000001\0", b""), Ok(()));
    assert_eq!(made(b"ustar  \0", b"", b""), Ok(()));
    for odd in [&b"../../x"[..], b"1 1", b"\t1", b"00000000001\0../../x"] {
        assert!(made(b"ustar  \0", odd, b"").is_err(), "{odd:?}");
        assert!(made(b"\0\0\0\0\0\0\0\0", odd, b"").is_err(), "{odd:?}");
    }
    // Star's prefix is shorter: a part of a path could end where it does.
    assert!(made(b"ustar\x0000", b"fine", b"tar\0").is_err());
}

#[test]
fn other_formats_and_lies_are_told_apart() {
    let told = |archive: &[u8]| check(archive).unwrap_err().to_string();
    let padded = |start: &[u8]| [start, &[1; 4_096]].concat();
    assert!(told(&padded(&[0x1f, 0x8b])).contains("compressed"));
    assert!(told(&padded(&[0x28, 0xb5, 0x2f, 0xfd])).contains("compressed"));
    assert!(told(&padded(b"PK")).contains("not a tar"));
    assert!(told(&tar(&[(b'0', "x", b"y")])).contains("no image"));
    assert!(told(&tar(&[(b'0', "index.json", b"y")])).contains("no image"));
    let mut after = tar(&image());
    let end = after.len();
    after.extend_from_slice(&tar(&[(b'0', "../x", b"")]));
    assert!(told(&after).contains("after the end"));
    assert_eq!(check(&after[..end]), Ok(()));
    let mut damaged = tar(&image());
    damaged[600] = 1;
    assert!(told(&damaged).contains("damaged"));
    let mut longer = Checker::new(10);
    assert!(longer.take(&[0; 11]).is_err());
    // A size that nothing could hold.
    let mut huge = tar(&image());
    huge[512 + 124..512 + 136]
        .copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255]);
    let mut block = huge[512..1_024].to_vec();
    seal(&mut block);
    huge[512..1_024].copy_from_slice(&block);
    assert!(told(&huge).contains("cut off"));
    assert!(check(&[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// How an archive is cut into pieces makes no difference.
    #[test]
    fn pieces_make_no_difference(
        piece in 1usize..2_000,
        flip in proptest::option::of((0usize..6_000, any::<u8>())),
    ) {
        let mut archive = tar(&image());
        if let Some((at, byte)) = flip {
            let at = at % archive.len();
            archive[at] = byte;
        }
        prop_assert_eq!(check(&archive).is_ok(), cut(&archive, piece).is_ok());
    }

    /// Noise is never taken, and never panics.
    #[test]
    fn noise_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..3_000)) {
        prop_assert!(check(&noise).is_err());
    }
}
