//! temporary
#[path = "lab.rs"]
mod lab;
use lab::*;
fn main() {
    let go = || {
        let t = Toolbox::find_or_build()?;
        println!("{t:?}");
        let reaper = Reaper::start()?;
        let mut o = ControlPlaneOptions { unsafe_no_fsync: std::env::var("NOFSYNC").is_ok(), ..Default::default() };
        o.api_server_flags = std::env::args().skip(1).collect();
        let c = ControlPlane::start(&t, &reaper, o)?;
        println!("{}", c.folder().display());
        for u in User::ALL {
            let out = c.kubectl(u).args(["auth", "whoami"]).output();
            println!("{}", String::from_utf8_lossy(&out.unwrap().stdout));
        }
        if std::env::var("WAIT").is_ok() {
            std::thread::sleep(std::time::Duration::from_secs(1000));
        }
        let s = say::step("stop api");
        c.stop_api_server();
        s.done();
        let s = say::step("start api");
        c.start_api_server()?;
        s.done();
        let s = say::step("drop");
        drop(c);
        s.done();
        let s = say::step("drop reaper");
        drop(reaper);
        s.done();
        Ok::<_, LabError>(())
    };
    if let Err(e) = go() {
        println!("{}", e.chain());
    }
}
