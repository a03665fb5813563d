//! A client that asks for one thing after the other until it is killed.

use std::path::Path;
use std::time::Duration;

use gabion::model::{Secrets, ServiceName};
use gabion::supervisor::{Client, Until};

use super::storm;

pub fn run(dir: &Path, services: u64, seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .expect("a runtime")
        .block_on(ask(dir, services, seed));
}

async fn ask(dir: &Path, services: u64, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        let Ok(Some(client)) = Client::open(dir) else {
            // Killed a moment ago; the socket is there again at once.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let index = random.u64(0..services);
        let name = ServiceName::new(storm::name_of(index)).expect("a name");
        let none = Secrets::default();
        // Some hang up before they are answered.
        let patience = match random.u8(0..4) {
            0 => Duration::from_millis(random.u64(1..30)),
            _ => Duration::from_secs(10),
        };
        let (choice, variant) = (random.u8(0..10), random.u32(..).to_string());
        let asked = async {
            match choice {
                0..3 => drop(client.start(&name, &none, Until::Settled).await),
                3..5 => drop(client.stop(&name).await),
                5..8 => drop(client.restart(&name, &none).await),
                _ => {
                    let spec = storm::spec_of(index, &variant);
                    drop(client.put(&name, &spec, &none).await);
                }
            }
        };
        let _ = tokio::time::timeout(patience, asked).await;
    }
}
