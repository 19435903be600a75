//! A cache of compiled kernels, bounded in bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use convgen_ir::problem::ConvProblem;

use crate::compiler::Compiler;
use crate::error::Error;
use crate::runtime::Kernel;

/// Kernels by problem (of any batch), the least recently used dropped first. Shared by threads.
pub struct KernelCache {
    compiler: Compiler,
    limit_bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kernels: HashMap<ConvProblem, CacheEntry>,
    bytes: usize,
    clock: u64,
}

struct CacheEntry {
    kernel: Arc<Kernel>,
    bytes: usize,
    last_use: u64,
}

impl KernelCache {
    /// A cache that holds kernels of at most this many bytes in all, and always the latest one.
    pub fn new(compiler: Compiler, limit_bytes: usize) -> KernelCache {
        KernelCache { compiler, limit_bytes, state: Mutex::default() }
    }

    /// The kernel of a problem, compiled if it is not there. Problems that differ in nothing but
    /// the batch share one.
    ///
    /// # Errors
    /// As [`Compiler::compile`].
    pub fn get(&self, problem: &ConvProblem) -> Result<Arc<Kernel>, Error> {
        let key = problem.with_batch(1)?;
        if let Some(kernel) = self.lock().touch(&key) {
            return Ok(kernel);
        }
        // Compiled without the lock: two threads may do the same work once, none waits for it.
        let kernel = Arc::new(self.compiler.compile(&key)?);
        let mut state = self.lock();
        if let Some(first) = state.touch(&key) {
            return Ok(first);
        }
        state.insert(key, Arc::clone(&kernel));
        state.evict(self.limit_bytes);
        Ok(kernel)
    }

    /// Bytes of memory that the kernels held take, about: see [`Kernel::held_bytes`].
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// The number of kernels held.
    pub fn len(&self) -> usize {
        self.lock().kernels.len()
    }

    /// Whether no kernel is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The state is consistent between statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn touch(&mut self, problem: &ConvProblem) -> Option<Arc<Kernel>> {
        self.clock = self.clock.saturating_add(1);
        let entry = self.kernels.get_mut(problem)?;
        entry.last_use = self.clock;
        Some(Arc::clone(&entry.kernel))
    }

    fn insert(&mut self, problem: ConvProblem, kernel: Arc<Kernel>) {
        self.clock = self.clock.saturating_add(1);
        let bytes = kernel.held_bytes().saturating_add(size_of::<(ConvProblem, CacheEntry)>());
        self.bytes = self.bytes.saturating_add(bytes);
        self.kernels.insert(problem, CacheEntry { kernel, bytes, last_use: self.clock });
    }

    fn evict(&mut self, limit: usize) {
        while self.bytes > limit && self.kernels.len() > 1 {
            let oldest = self.kernels.iter().min_by_key(|(_, entry)| entry.last_use);
            let Some(problem) = oldest.map(|(problem, _)| problem.clone()) else { return };
            if let Some(entry) = self.kernels.remove(&problem) {
                self.bytes = self.bytes.saturating_sub(entry.bytes);
            }
        }
    }
}
