//! The pool without the feature `tls`: no stream is one of TLS.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use super::socket::{Received, Socket};
use crate::{metrics::WorkerMetrics, tls::Tls};

/// What a worker lends to its TLS streams: nothing.
pub(crate) struct TlsCx;

impl TlsCx {
    pub(crate) fn new(_: &Arc<WorkerMetrics>, _: bool) -> TlsCx {
        TlsCx
    }

    pub(super) fn begin_turn(&mut self) {}
}

/// No stream.
pub(crate) enum TlsStream {}

impl TlsStream {
    pub(super) fn new(_: Socket, tls: &Tls, _: bool) -> io::Result<TlsStream> {
        match *tls {}
    }

    pub(super) fn is_handshaking(&self) -> bool {
        match *self {}
    }

    pub(super) fn held_bytes(&self) -> usize {
        match *self {}
    }

    pub(super) fn unsent_bytes(&self) -> usize {
        match *self {}
    }

    pub(super) fn begin(&mut self, _: &[u8]) -> Result<(), ()> {
        match *self {}
    }

    pub(super) fn has_unsent(&self) -> bool {
        match *self {}
    }

    pub(super) fn take_progress(&mut self) -> bool {
        match *self {}
    }

    pub(super) fn is_worn(&self) -> bool {
        match *self {}
    }

    pub(super) fn take_is_worn(&mut self) -> bool {
        match *self {}
    }

    pub(super) fn count_failed(&mut self, _: &TlsCx) {
        match *self {}
    }

    pub(super) fn read(&mut self, _: &mut [u8], _: &mut TlsCx) -> io::Result<Received> {
        match *self {}
    }

    pub(super) fn write(&mut self, _: &[IoSlice<'_>], _: &mut TlsCx) -> io::Result<usize> {
        match *self {}
    }

    pub(super) fn close_notify(&mut self, _: &mut TlsCx) {
        match *self {}
    }

    pub(super) fn end(&mut self, _: &mut TlsCx) -> io::Result<()> {
        match *self {}
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        match *self {}
    }
}
