"""Publishers and readers while the network breaks: nothing is lost, repeated, or out of order."""

from __future__ import annotations

import asyncio
import os
import random
import time
import unittest
from typing import Any

from rusty_socks import Connected, Lost, Published

from .support import SEED, Reader, ServerTest, until, within

SOAK_S = float(os.environ.get("SOAK_S") or 3)

# On a machine that is busy with other things it takes longer until so many are said.
MESSAGES_MIN = 51

ROOMS = ("x", "y")


class Soak(ServerTest):
    async def test_soak(self) -> None:
        for history, resume_window in ((10_000, 60), (10_000, 0)):
            with self.subTest(seed=SEED, resume_window=resume_window):
                await self.soak(history=history, resume_window=resume_window)

    async def soak(self, *, history: int, resume_window: int) -> None:
        await self.serve(
            history=history,
            history_bytes="16MiB",
            buffer=100_000,
            buffer_bytes="8MiB",
            resume_window=resume_window,
            max_away_sessions=100 if resume_window else 0,
            rate_messages=0,
            ping=1,
        )
        draw = random.Random(SEED)
        fast: dict[str, Any] = {"ping_s_max": 0.2, "silence_extra_s": 0}
        control = await self.connect(direct=True)
        publishers = [await self.connect(**fast) for _ in range(4)]
        readers = [await self.connect(**fast), await self.connect(**fast, hold_max=20, queue_max=5)]
        everyone = [control, *publishers, *readers]
        for reader in everyone:
            for name in ROOMS:
                await within("join", reader.join(name))
        end = time.monotonic() + SOAK_S
        receipts: list[asyncio.Task[Published]] = []

        def goes_on() -> bool:
            return time.monotonic() < end or len(receipts) < MESSAGES_MIN

        async def publish(publisher: Reader, name: int) -> None:
            number = 0
            while goes_on():
                to = (["x"], ["y"], ["x", "y"])[number % 3]
                content = f"{name}.{number}"
                call = publisher.client.publish(to, content, echo=True)
                receipts.append(asyncio.create_task(call))
                number += 1
                # A few at a time, as a program would that waits for some of its answers.
                if number % 4 == 0:
                    await within("answers", asyncio.gather(*receipts[-4:]))

        breaks = 0

        async def harm() -> None:
            nonlocal breaks
            while goes_on():
                how = draw.randrange(5)
                if how == 0:
                    self.proxy.cut()
                elif how == 1:
                    self.proxy.reset()
                elif how == 2:
                    self.proxy.stall(draw.choice(("up", "down")))
                elif how == 3:
                    self.proxy.delay_s = draw.random() * 0.03
                else:
                    self.proxy.stall("down")
                    self.proxy.reset()
                breaks += 1
                # The network is as it is for a moment: this is the weather, and no wait.
                await asyncio.sleep(0.05 + draw.random() * 0.25)
                self.proxy.release()
            self.proxy.delay_s = 0

        await asyncio.gather(harm(), *(publish(each, n) for n, each in enumerate(publishers)))
        results = await within("answers", asyncio.gather(*receipts))
        last = dict.fromkeys(ROOMS, 0)
        for receipt in results:
            for place in receipt.rooms:
                last[place.room] = max(last[place.room], place.seq)

        def told(reader: Reader, name: str) -> list[tuple[int, str]]:
            return [(message.seq, message.content) for message in reader.messages[name]]

        for reader in everyone:
            for name in ROOMS:
                seen = reader.messages[name]
                await until(
                    lambda r=reader, n=name: (  # type: ignore[misc]
                        f"message {last[n]} of {n}: {len(r.messages[n])} came, lost "
                        f"{r.of(Lost)}, {r.client.state}, {len(r.of(Connected))} sessions"
                    ),
                    lambda s=seen, n=name: s and s[-1].seq >= last[n],  # type: ignore[misc]
                )
        for name in ROOMS:
            wanted = told(control, name)
            self.assertEqual([seq for seq, _ in wanted], list(range(1, last[name] + 1)))
            if resume_window:
                # A server that has forgotten the session cannot know a message again.
                contents = {content for _, content in wanted}
                self.assertEqual(len(contents), last[name], "published once")
            for reader in everyone:
                self.assertEqual(told(reader, name), wanted)
        for reader in everyone:
            self.assertEqual(reader.of(Lost), [])
        sessions = sum(len(reader.of(Connected)) for reader in publishers + readers)
        resumed = sum(event.resumed for reader in everyone for event in reader.of(Connected))
        self.assertGreaterEqual(len(results), MESSAGES_MIN)
        self.assertGreater(breaks, 5)
        self.assertEqual(resumed > 0, resume_window > 0)
        print(
            f"soak: {len(results)} messages, {breaks} breaks, {sessions} connections, "
            f"{resumed} resumed, seed {SEED}"
        )


if __name__ == "__main__":
    unittest.main()
