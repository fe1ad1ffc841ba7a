//! ecdysis. Its successors find the sockets by address, in a list that comes through a pipe; what a service manager
//! hands over it finds by name alone, which only the part for tokio does.

mod common;

use ecdysis::Ecdysis;
use ecdysis::tokio_ecdysis::{StopOnShutdown, TokioEcdysisBuilder};

fn main() {
    let entry = common::now();
    let args = common::Args::parse();
    common::mark("claim");
    if args.only_claims {
        claim(&args, entry);
    }
    let mut ecdysis = Ecdysis::new();
    let _listeners: Vec<_> =
        args.addresses.iter().map(|address| ecdysis.listen_tcp(*address).unwrap()).collect();
    common::mark("claimed");
    ecdysis.ready().unwrap();
    common::serve(|| {
        common::timed(|| ecdysis.upgrade()).map_err(|error| error.to_string()).unwrap();
    });
}

fn claim(args: &common::Args, entry: u128) -> ! {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut builder = TokioEcdysisBuilder::new(tokio::signal::unix::SignalKind::user_defined2()).unwrap();
        builder.read_systemd_sockets().unwrap();
        let (ecdysis, _upgrade) = builder.ready().unwrap();
        let mut listeners = Vec::new();
        for (name, address) in (0..args.addresses.len()).rev().zip(&args.addresses) {
            let name = format!("s{name}");
            let listener = ecdysis.systemd_listen_tcp(StopOnShutdown::Yes, name, *address).await;
            listeners.push(listener.unwrap_or_else(|_| panic!("{address}")));
        }
        common::mark("claimed");
        common::claimed(entry)
    })
}
