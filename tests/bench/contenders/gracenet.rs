//! The crate in a std program that does no more than the others.

mod common;

use gracenet::{Endpoint, Launch, Net, Options};
use std::time::Duration;

fn main() {
    let entry = common::now();
    // SAFETY: first thing in main.
    let mut launch: Launch<2048> = unsafe { Launch::from_libc() }.unwrap();
    let args = common::Args::parse();
    common::mark("claim");
    let mut net = Box::new(Net::<1024>::new());
    // SAFETY: nothing has been opened yet.
    unsafe { net.inherit(&mut launch) }.unwrap();
    for address in &args.addresses {
        net.claim_at(&Endpoint::tcp(*address), &Options::new()).unwrap();
    }
    common::mark("claimed");
    if args.only_claims {
        common::claimed(entry);
    }
    net.ready().unwrap();
    common::serve(|| {
        common::timed(|| net.start_process(&mut launch).map(drop)).unwrap();
        net.successor_mut().unwrap().wait_ready(Duration::from_secs(30)).unwrap();
    });
}
