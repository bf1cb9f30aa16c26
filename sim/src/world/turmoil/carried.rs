//! A program that is driven by an async shell, within reach of whoever may kill it.

use crate::host::{ConnId, Input, Output, Program};
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Instant;
use trace::{Event, Name};

struct Inner {
    program: Option<Box<dyn Program>>,
    /// The connections that it has not heard the end of.
    conns: BTreeSet<ConnId>,
    /// Its node, if its deadlines are to be logged.
    name: Option<Name>,
    /// The deadlines that it was called at.
    called: VecDeque<Event>,
}

/// A program in a shell. Once it is taken away, what is left does nothing.
#[derive(Clone)]
pub(super) struct Carried(Rc<RefCell<Inner>>);

impl Carried {
    pub(super) fn new(program: Box<dyn Program>, name: Option<Name>) -> Carried {
        let (program, conns, called) = (Some(program), BTreeSet::new(), VecDeque::new());
        Carried(Rc::new(RefCell::new(Inner { program, conns, name, called })))
    }

    /// Takes it out of its shell, as its machine would find its records on the next start: its connections are gone, and what
    /// it still wanted is not done.
    pub(super) fn take(&self, now: Instant) -> Option<Box<dyn Program>> {
        let mut inner = self.0.borrow_mut();
        let mut program = inner.program.take()?;
        for conn in std::mem::take(&mut inner.conns) {
            program.handle(Input::Closed { conn }, now);
        }
        while program.poll_output().is_some() {}
        Some(program)
    }

    /// Does something with it, if it still runs.
    pub(super) fn with(&mut self, f: impl FnOnce(&mut dyn Program)) {
        if let Some(program) = &mut self.0.borrow_mut().program {
            f(program.as_mut());
        }
    }

    /// Looks at it, if it still runs.
    pub(super) fn look<R>(&self, f: impl FnOnce(&dyn Program) -> R) -> Option<R> {
        self.0.borrow().program.as_deref().map(f)
    }
}

impl Program for Carried {
    fn udp_ports(&self) -> Vec<u16> {
        self.0.borrow().program.as_ref().map(|program| program.udp_ports()).unwrap_or_default()
    }

    fn tcp_ports(&self) -> Vec<u16> {
        self.0.borrow().program.as_ref().map(|program| program.tcp_ports()).unwrap_or_default()
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        let mut inner = self.0.borrow_mut();
        match &input {
            Input::Accepted { conn, .. } | Input::Connected { conn } => _ = inner.conns.insert(*conn),
            Input::Closed { conn } => _ = inner.conns.remove(conn),
            _ => {}
        }
        if let Some(program) = &mut inner.program {
            program.handle(input, now);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        let inner = &mut *self.0.borrow_mut();
        if let Some(program) = &mut inner.program {
            if let (Some(node), Some((_, what))) = (&inner.name, program.poll_timeout()) {
                inner.called.push_back(Event::Timer { node: node.clone(), what: what.into() });
            }
            program.handle_timeout(now);
        }
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.0.borrow().program.as_ref()?.poll_timeout()
    }

    fn poll_output(&mut self) -> Option<Output> {
        let mut inner = self.0.borrow_mut();
        if let Some(event) = inner.called.pop_front() {
            return Some(Output::Event(Box::new(event)));
        }
        let output = inner.program.as_mut()?.poll_output();
        match &output {
            Some(Output::Connect { conn, .. }) => _ = inner.conns.insert(*conn),
            Some(Output::Close { conn }) => _ = inner.conns.remove(conn),
            _ => {}
        }
        output
    }

    fn is_finished(&self) -> bool {
        self.0.borrow().program.as_ref().is_none_or(|program| program.is_finished())
    }
}
