//! Who a program is, and what it finds around it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use wolfpack_proto::sandbox::v1::ExecStart;
use wolfpack_types::Reason;

use super::harness::shell;
use super::sandbox;

/// With the superuser's rights programs become who they should be; without,
/// they are refused rather than run as somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_who_it_should_be() {
    let sandbox = sandbox().await;
    let as_wolf = ExecStart {
        user: "wolf".into(),
        ..shell(
            "id -u; id -g; id -G; echo $HOME $USER; grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | sort -u -k2 | wc -l; \
             grep CapBnd /proc/self/status; echo again >/dev/stdout; echo err >/dev/stderr; umask",
        )
    };
    if !rustix::process::geteuid().is_root() {
        let fault = sandbox.start(as_wolf).await.err().unwrap();
        assert_eq!(fault.reason, Reason::ExecFailed);
        assert!(fault.message.contains("user could not be taken on"), "{}", fault.message);
        return;
    }
    let outcome = sandbox.run(as_wolf).await;
    let expected =
        "4100\n4100\n4100 4144\n/home/wolf wolf\n1\nCapBnd:\t0000000000000000\nagain\n0022\n";
    assert_eq!((outcome.out().as_str(), outcome.err().as_str()), (expected, "err\n"));
    let numbers = ExecStart { user: "4242:4343".into(), ..shell("id -u; id -G; echo $HOME $USER") };
    assert_eq!(sandbox.run(numbers).await.out(), "4242\n4343\n/ 4242\n");
    let owner = ExecStart { user: "wolf".into(), tty: true, ..shell("stat -c '%u %a' $(tty)") };
    assert_eq!(sandbox.run(owner).await.out(), "4100 620\r\n", "the terminal is the user's");
    std::fs::set_permissions(sandbox.folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let private = ExecStart {
        user: "wolf".into(),
        cwd: sandbox.folder.path().to_str().unwrap().to_owned(),
        ..shell("true")
    };
    let fault = sandbox.start(private).await.err().unwrap();
    assert!(fault.message.contains("may not enter"), "{}", fault.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_finds_a_clean_place() {
    let sandbox = sandbox().await;
    // Not by a shell, which changes its signals and opens descriptors itself.
    let argv = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"].map(str::to_owned).to_vec();
    let outcome = sandbox.run(ExecStart { argv, ..ExecStart::default() }).await.out();
    for line in outcome.lines() {
        let mask = u64::from_str_radix(line.split('\t').nth(1).unwrap(), 16).unwrap();
        // Signals 32 and 33 belong to the C library, which ignores them in what it spawns.
        assert_eq!(mask & 0x7fff_ffff, 0, "{line}");
    }
    // ls has one more open: the folder it lists.
    let argv = ["ls", "/proc/self/fd"].map(str::to_owned).to_vec();
    let listed = sandbox.run(ExecStart { argv, ..ExecStart::default() }).await.out();
    assert_eq!(listed, "0\n1\n2\n3\n");
    let script = "test \"$(ps -o sid= -p $$)\" -eq $$ && test \"$(ps -o pgid= -p $$)\" -eq $$ && echo leader";
    assert_eq!(sandbox.sh(script).await.out(), "leader\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_environment_is_the_boots_and_the_callers_only() {
    let sandbox = sandbox().await;
    let env = BTreeMap::from([
        ("MINE".to_owned(), "1 2".to_owned()),
        ("HOME".to_owned(), "/x".to_owned()),
    ]);
    let start = ExecStart {
        env,
        ..shell(
            "env | sort | cut -d= -f1 | tr '\\n' ' '; echo; echo $FROM_BOOT:$MINE:$HOME:$PATH; pwd",
        )
    };
    let outcome = sandbox.run(start).await;
    // The shell itself adds PWD.
    let expected = "FROM_BOOT HOME MINE PATH PWD USER \nboot:1 2:/x:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n/\n";
    assert_eq!(outcome.out(), expected);
    let moved = ExecStart { cwd: "/usr/bin".into(), ..shell("pwd") };
    assert_eq!(sandbox.run(moved).await.out(), "/usr/bin\n");
}
