//! Times the kernels of one problem, each on its number of threads, in turns.
//!
//! Promises: all read the same input; a turn of one thread runs on a thread of the pool too, so
//! turns differ in nothing but the threads. If calls are cold, every thread of the pool empties the
//! caches of its core before each.

use convgen::check::Data;
use convgen::eviction::Evictor;
use convgen::timing::{self, CacheState, Timing};
use convgen::{Aligned, Error, Host, PackedWeights};
use rayon::ThreadPool;

use super::Compiled;

/// The fewest calls that are timed of a kernel that is alone.
const MIN_CALLS: usize = 3;
/// How often several kernels take turns.
const ROUNDS: usize = 10;
/// The fewest cold calls of a kernel, of which the median is the figure: an odd number, and of
/// so many some may be interrupted.
const COLD_CALLS: usize = 15;

/// A pool for calls on up to so many threads; none for one.
pub fn pool(threads: usize) -> Result<Option<ThreadPool>, rayon::ThreadPoolBuildError> {
    let pool = || rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    (threads > 1).then(pool).transpose()
}

/// What empties the caches, if calls are cold.
pub fn evictor(caches: CacheState, host: &Host) -> Option<Evictor> {
    match caches {
        CacheState::Warm => None,
        CacheState::Cold => Some(Evictor::new(host.caches())),
    }
}

/// What the calls of each kernel took, in so many seconds each.
pub(super) fn time(
    kernels: &[Compiled],
    seconds: f64,
    pool: Option<&ThreadPool>,
    evictor: Option<&Evictor>,
) -> Result<Vec<Timing>, Error> {
    let Some(first) = kernels.first() else { return Ok(vec![]) };
    let data = Data::reals(first.kernel.problem());
    let turn = |of| Turn::new(of, &data);
    let mut turns = kernels.iter().map(turn).collect::<Result<Vec<Turn>, Error>>()?;
    match pool {
        None => take(&mut turns, seconds, evictor),
        // Timed inside the pool: entering it is no part of a call.
        Some(pool) => pool.install(|| take(&mut turns, seconds, evictor)),
    }
}

/// One kernel with its data.
struct Turn<'a> {
    of: &'a Compiled,
    data: &'a Data,
    weights: PackedWeights,
    output: Aligned,
}

impl<'a> Turn<'a> {
    fn new(of: &'a Compiled, data: &'a Data) -> Result<Turn<'a>, Error> {
        let weights = of.kernel.pack_weights(data.weights())?;
        Ok(Turn { of, data, weights, output: Aligned::zeros(data.output_len()) })
    }
}

fn take(turns: &mut [Turn], seconds: f64, evictor: Option<&Evictor>) -> Result<Vec<Timing>, Error> {
    let rounds = match (evictor, turns.len()) {
        (Some(_), _) => COLD_CALLS,
        (None, 1) => MIN_CALLS,
        (None, _) => ROUNDS,
    };
    let mut results: Vec<Result<(), Error>> = turns.iter().map(|_| Ok(())).collect();
    let extras: Vec<&[f32]> = turns.first().map_or(vec![], |turn| turn.data.extras());
    let call = |(turn, result): (_, _)| call(turn, &extras, result);
    let mut calls: Vec<_> = turns.iter_mut().zip(&mut results).map(call).collect();
    let mut functions: Vec<&mut dyn FnMut()> = calls.iter_mut().map(|call| call as _).collect();
    let timings = timed(evictor, seconds, rounds, &mut functions);
    drop(calls);
    results.into_iter().collect::<Result<(), Error>>()?;
    Ok(timings)
}

/// [`timing::turns`], cold if there is something that empties the caches.
pub fn timed(
    evictor: Option<&Evictor>,
    seconds: f64,
    rounds: usize,
    functions: &mut [&mut dyn FnMut()],
) -> Vec<Timing> {
    match evictor {
        None => timing::turns(None, seconds, rounds, functions),
        Some(evictor) => {
            let empty = || {
                evictor.empty();
            };
            timing::turns(Some(&empty), seconds, rounds, functions)
        }
    }
}

/// A call that leaves its result behind. The first touches the memory and is not counted; if it
/// works, so do the others.
fn call<'a>(
    turn: &'a mut Turn,
    extras: &'a [&[f32]],
    result: &'a mut Result<(), Error>,
) -> impl FnMut() + 'a {
    let Turn { of, data, weights, output } = turn;
    let arguments = data.arguments(weights, extras);
    move || *result = of.kernel.run_parallel(&arguments, output, of.threads)
}
