"""The quick start of the README, played against the real server as it stands there."""

from __future__ import annotations

import asyncio
import re
import sys
import unittest
from pathlib import Path

from .support import ServerTest, within

README = Path(__file__).resolve().parents[1] / "README.md"


class ReadmeTest(ServerTest):
    async def test_the_quick_start_prints_what_the_readme_says(self) -> None:
        await self.serve()
        text = README.read_text(encoding="utf-8").split("## Quick start")[1]
        program, printed = re.findall(r"```(?:python|text)\n(.*?)```", text, re.DOTALL)[:2]
        self.assertIn("ws://localhost:3030/ws", program)
        program = program.replace("ws://localhost:3030/ws", self.server.url)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await within("end of the program", process.communicate())
        self.assertEqual((out.decode(), process.returncode), (printed, 0))


if __name__ == "__main__":
    unittest.main()
