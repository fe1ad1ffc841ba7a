//! The crate in a std program that does no more than the others.

mod common;

use gracenet::{Endpoint, Launch, ListenOptions, Net, Progress};
use std::sync::Mutex;
use std::time::Duration;

/// Large, and so in no stack frame, of which every page would be touched.
static LAUNCH: Mutex<Launch<2048>> = Mutex::new(Launch::empty());
static NET: Mutex<Net<1024>> = Mutex::new(Net::new());

fn main() {
    let entry = common::now();
    let mut launch = LAUNCH.lock().unwrap();
    // SAFETY: first thing in main.
    unsafe { launch.capture_from_libc() }.unwrap();
    let args = common::Args::parse();
    common::mark("claim");
    let mut net = NET.lock().unwrap();
    // SAFETY: nothing has been opened yet.
    unsafe { net.inherit(&mut launch) }.unwrap();
    for address in &args.addresses {
        net.claim_at(&Endpoint::tcp(*address), &ListenOptions::new()).unwrap();
    }
    common::mark("claimed");
    if args.only_claims {
        common::claimed(entry);
    }
    net.ready().unwrap();
    common::serve(|| {
        common::timed(|| net.start_process(&mut launch).map(drop)).unwrap();
        let ready = net.successor_mut().unwrap().wait_ready(Duration::from_secs(30));
        assert_eq!(ready, Ok(Progress::Ready));
    });
}
