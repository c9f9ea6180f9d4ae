"""What all clients of a cluster know together: each message, its numbers, and what is wrong."""

import collections
import time

# The lines of a client's story that stand with a finding, before its moment and after it.
STORY_BEFORE, STORY_AFTER = 28, 8


class Sent:
    """A message that a client has published, or sent directly."""

    def __init__(self, key, by, rooms, echo, id):
        self.key, self.by, self.rooms, self.echo, self.id = key, by, rooms, echo, id
        # Until an answer comes, it may have been published or not.
        self.fate = "doubt"
        self.seqs = {}
        self.to = None
        self.at = time.monotonic()


class Finding:
    def __init__(self, what, who, words, at):
        self.what, self.who, self.words, self.at = what, who, words, at


class Ledger:
    """`is_lossless` tells whether nothing that Redis had has been taken from it so far."""

    def __init__(self):
        self.began = time.monotonic()
        self.sent = {}
        # The message that has a number in an epoch of a room, and who saw it first.
        self.numbers = {}
        self.findings = []
        self.stories = collections.defaultdict(list)
        self.counts = collections.Counter()
        # Kinds of what happened that may cost messages or sessions.
        self.losses = set()
        self.told = []
        self.holes = []
        self.not_recovered = []

    def now(self):
        return time.monotonic() - self.began

    @property
    def is_lossless(self):
        return not self.losses

    @property
    def is_split(self):
        """Whether two primaries may have taken messages, or sessions, at a time."""
        return any(name in ("demote", "promote") or "sentinel" in name for name in self.losses)

    def note(self, who, words):
        """Adds a line to the story of somebody; faults are told under the name "fault"."""
        self.stories[who].append((self.now(), words))

    def find(self, what, who, words, at=None):
        """Keeps a finding; the story around `at` is its own."""
        self.counts[f"finding {what}"] += 1
        self.note(who, f"!!! {what}: {words}")
        self.findings.append(Finding(what, who, words, self.now() if at is None else at))

    def number(self, who, room, epoch, seq, key):
        """Takes note that a message has a number: no other one may have it in the same epoch."""
        known, by = self.numbers.setdefault((room, epoch, seq), (key, who))
        if known != key:
            words = f"{room} {epoch} {seq} is {key}, and was {known} to {by}"
            self.find("two messages with one number", who, words)

    def judge(self):
        """Looks at what can be known at the end alone."""
        keys_at = collections.defaultdict(set)
        for (room, _, seq), (key, _) in self.numbers.items():
            keys_at[room, seq].add(key)
        # Numbers that a client does not get because they are its own; and rooms where an answer
        # that was lost would have said which.
        own, unclear = set(), set()
        for sent in self.sent.values():
            if not sent.echo:
                own.update((sent.by, room, seq) for room, seq in sent.seqs.items())
                if sent.fate == "doubt":
                    unclear.update((sent.by, room) for room in sent.rooms)

        def is_own(who, room, epoch, seq):
            exact = self.numbers.get((room, epoch, seq))
            if exact:
                sent = self.sent[exact[0]]
                return sent.by == who and not sent.echo
            theirs = [self.sent[key] for key in keys_at[room, seq]]
            if any(sent.by == who and not sent.echo for sent in theirs):
                return True
            return (who, room, seq) in own or (who, room) in unclear

        for who, room, epoch, seq, at in self.holes:
            if not is_own(who, room, epoch, seq):
                key = self.numbers.get((room, epoch, seq), ("unknown to all",))[0]
                self.find("untold hole", who, f"{room} {epoch} {seq}: {key}", at)
        has_several = any(len(sent.rooms) > 1 for sent in self.sent.values())
        if not self.is_lossless:
            return
        for sent in self.sent.values():
            for room, seq in sent.seqs.items():
                if keys_at[room, seq] and sent.key not in keys_at[room, seq]:
                    words = f"{sent.key} was answered with {room} {seq}: {keys_at[room, seq]}"
                    self.find("acknowledged, and not there", sent.by, words, sent.at - self.began)
        if has_several:
            # They may overtake what a node repairs, and then it says more than is lost.
            return
        for who, room, epoch, first, last, at in self.told:
            others = [n for n in range(first, last + 1) if not is_own(who, room, epoch, n)]
            if others:
                words = f"{room} {epoch} {first} to {last}, of which {others}"
                self.find("told as lost, and nothing was", who, words, at)
        for who, words, at in self.not_recovered:
            self.find("not recovered, and nothing was lost", who, words, at)

    def tell(self, finding):
        """The finding with the story of the client, in which the faults stand."""
        lines = [(at, f"   {words}") for at, words in self.stories[finding.who]]
        if finding.who != "fault":
            lines += [(at, f"== {words}") for at, words in self.stories["fault"]]
        lines.sort(key=lambda line: line[0])
        before = [line for line in lines if line[0] <= finding.at][-STORY_BEFORE:]
        after = [line for line in lines if line[0] > finding.at][:STORY_AFTER]
        head = f"FOUND {finding.what}, by {finding.who} at {finding.at:.3f} s: {finding.words}"
        return "\n".join([head] + [f"   {at:8.3f} {words}" for at, words in before + after])
