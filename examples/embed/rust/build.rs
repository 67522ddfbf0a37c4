//! Links librecfuse_c where pkg-config says that it is, and has the program look for it there.
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");
    let found = Command::new("pkg-config")
        .args(["--variable=libdir", "recfuse-c"])
        .output()
        .expect("pkg-config must be installed");
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let folder = String::from_utf8(found.stdout).expect("a path in UTF-8");
    println!("cargo:rustc-link-search=native={}", folder.trim());
    println!("cargo:rustc-link-lib=dylib=recfuse_c");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.trim());
}
