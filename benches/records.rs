//! How long a database of a hundred thousand records takes: to read it, to find a record in it, to
//! check all of it, and to store one more.
//!
//! Reading must take less than 0.2 s, since it may happen in the first call of a program.

#[path = "common/layers.rs"]
mod layers;

use std::hint::black_box;

use convgen::algorithm::Algorithm;
use convgen::ir::problem::ConvProblem;
use convgen::record::{Database, Key, Record, Store};
use convgen::{Host, Target, scheduler};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const RECORDS: u64 = 100_000;

/// The default schedules of ResNet-50's layers as records, each with many numbers of output
/// channels.
fn database(target: &Target) -> Database {
    let layers = layers::of("resnet50");
    let mut database = Database::new();
    for i in 0..RECORDS {
        let layer = &layers[i as usize % layers.len()].problem;
        let mut spec = layer.to_spec();
        spec.out_channels += i;
        let problem = ConvProblem::new(spec).expect("a layer with more channels");
        let (_, schedule) = scheduler::default_schedule(layer, target);
        let record = Record {
            key: Key::new(&problem, target, 1),
            algorithm: Algorithm::Direct,
            schedule,
            batch: 1,
            seconds: 1e-3 + i as f64 * 1e-9,
            default_seconds: 2e-3,
            candidates: 40,
            date: "2027-01-15T08:00:00Z".into(),
        };
        database.insert(&record).expect("a sound record");
    }
    database
}

fn records(criterion: &mut Criterion) {
    let host = Host::detect();
    let target = host.target(host.widest_isa()).expect("the widest instruction set of the host");
    let database = database(&target);
    let text = database.text();
    println!("{} records, {} bytes", database.len(), text.len());
    let all = database.records();
    let problem: ConvProblem = all[12_345].key.problem().parse().expect("a record's problem");
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::at(folder.path().join("tuning.jsonl"));
    let merged = store.update(|stored| {
        stored.merge(&database);
        Ok(())
    });
    merged.expect("a new file");
    let better = Record { seconds: 1e-9, ..all[12_345].clone() };

    let mut group = criterion.benchmark_group("100k records");
    group.sample_size(10).throughput(Throughput::Elements(RECORDS));
    // Giving the memory back is no part of it.
    group.bench_function("read", |b| b.iter_with_large_drop(|| Database::read(black_box(&text))));
    group.bench_function("load the file", |b| {
        b.iter_with_large_drop(|| store.load().expect("the file"));
    });
    group.bench_function("examine", |b| {
        b.iter_batched_ref(
            || database.clone(),
            Database::examine,
            criterion::BatchSize::PerIteration,
        );
    });
    group.bench_function("store one", |b| {
        let mut record = better.clone();
        b.iter(|| {
            record.seconds *= 0.9;
            store.insert(&record).expect("the file")
        });
    });
    group.finish();
    let find = || database.find(black_box(&problem), &target, 1).expect("a sound record");
    assert!(find().is_some());
    criterion.bench_function("find one of 100k records", |b| b.iter(find));
}

criterion_group!(benches, records);
criterion_main!(benches);
