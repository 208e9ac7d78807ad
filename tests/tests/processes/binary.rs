//! The program under test: built once, with the profile of the tests.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The `lockstep` program as it ships, up to date.
pub(crate) fn lockstep() -> &'static PathBuf {
    static SHIPPED: OnceLock<PathBuf> = OnceLock::new();
    SHIPPED.get_or_init(|| {
        // Another build of it, such as a release, judged by the tests of this one.
        if let Some(given) = std::env::var_os("LOCKSTEP_PROGRAM") {
            return PathBuf::from(given);
        }
        // Both have the same name, so the one that ships is made last.
        failpoints();
        build(&[])
    })
}

/// The same with feature `failpoints`: with places at which a test can end a sidecar.
pub(crate) fn failpoints() -> &'static PathBuf {
    static FAILPOINTS: OnceLock<PathBuf> = OnceLock::new();
    FAILPOINTS.get_or_init(|| {
        let built = build(&["--features", "failpoints"]);
        let kept = built.with_file_name("lockstep-failpoints");
        std::fs::copy(&built, &kept).expect("the build's directory can be written");
        kept
    })
}

fn build(features: &[&str]) -> PathBuf {
    // target/<profile>/deps/processes-<hash>
    let test = std::env::current_exe().expect("the test knows its own file");
    let deps = test.parent().expect("a test lies in a directory");
    let profile = deps.parent().expect("deps lies in the profile's directory");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--package", "lockstep"]).args(features);
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(name) => {
            build.args(["--profile", name]);
        }
    }
    if let Some(target) = profile.parent() {
        build.arg("--target-dir").arg(target);
    }
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(build.status().expect("cargo runs").success(), "lockstep does not build");
    profile.join("lockstep")
}

/// Whether Redis is here; prints why a test is skipped. `LOCKSTEP_REQUIRE_REDIS=1`: its absence is a failure.
pub(crate) fn has_redis(test: &str) -> bool {
    let runs = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success());
    if ["redis-server", "redis-cli", "redis-benchmark"].into_iter().all(runs) {
        return true;
    }
    assert!(std::env::var_os("LOCKSTEP_REQUIRE_REDIS").is_none_or(|value| value != "1"), "Redis is not installed");
    println!("SKIPPED {test}: redis-server, redis-cli and redis-benchmark are not all installed");
    false
}
