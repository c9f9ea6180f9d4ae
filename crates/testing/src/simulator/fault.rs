//! What goes wrong: cuts, losses that only one side knows of, slow networks, stalls, jumps of time.

use super::{client::Verdict, world::World};
use crate::random::Random;

/// Something that goes wrong now and then.
pub trait Fault {
    /// Makes it go wrong.
    ///
    /// # Errors
    /// A promise that was found broken on the way.
    fn strike(&mut self, world: &mut World, random: &mut Random) -> Verdict;
}

/// Every fault there is.
pub(super) fn faults() -> Vec<Box<dyn Fault>> {
    vec![Box::new(Cut), Box::new(Loss), Box::new(SlowNetwork), Box::new(Stall), Box::new(Jump)]
}

/// A connection is reset, at whatever byte.
struct Cut;

impl Fault for Cut {
    fn strike(&mut self, world: &mut World, random: &mut Random) -> Verdict {
        let index = random.below(world.clients.len());
        world.with(index, |client, scene| {
            if let Some(mut socket) = client.lose("it is cut", scene) {
                socket.reset();
            }
        });
        Ok(())
    }
}

/// A client has lost its connection, and the server does not know.
struct Loss;

impl Fault for Loss {
    fn strike(&mut self, world: &mut World, random: &mut Random) -> Verdict {
        let index = random.below(world.clients.len());
        world.with(index, |client, scene| drop(client.lose("only the client knows", scene)));
        Ok(())
    }
}

/// The network holds little for a client, which reads seldom.
struct SlowNetwork;

impl Fault for SlowNetwork {
    fn strike(&mut self, world: &mut World, random: &mut Random) -> Verdict {
        for _ in 0..=world.clients.len() / 10 {
            let index = random.below(world.clients.len());
            let window = *random.one_of(&[1, 100, 2000]);
            let client = &mut world.clients[index];
            if let Some(socket) = &mut client.socket {
                socket.set_window(Some(window));
                client.was_slow = true;
            }
        }
        Ok(())
    }
}

/// A worker makes no turn for a while.
struct Stall;

impl Fault for Stall {
    fn strike(&mut self, world: &mut World, random: &mut Random) -> Verdict {
        let worker = random.below(world.stalled.len());
        world.stalled[worker] = world.step + 1 + random.below(50) as u64;
        Ok(())
    }
}

/// Time jumps forward.
struct Jump;

impl Fault for Jump {
    fn strike(&mut self, world: &mut World, random: &mut Random) -> Verdict {
        if random.one_in(20) {
            world.jump(*random.one_of(&[200, 1000, 1500, 4000, 7000, 31_000, 70_000]));
        }
        Ok(())
    }
}
