"""What one client has been told, and whether it may be told so. It reads docs/protocol.md, "Writing
a client", as strictly as it is written."""


class Room:
    """A room that the client is in, and its position there."""

    def __init__(self, epoch, seq):
        self.epoch, self.seq = epoch, seq
        # Messages by their keys, with their numbers, that it has received and Redis has not lost.
        self.got = {}
        # Numbers that it was told that it missed.
        self.told = []
        # Grows with each position that comes another way than by a message.
        self.turn = 0
        # The highest number that an answer to a publish of its own had, in this turn.
        self.answered = 0

    def was_told(self, seq):
        return any(first <= seq <= last for first, last in self.told)


def pairs_of(frame):
    """The rooms of a message or an answer, with the numbers there."""
    if "rooms" in frame:
        return [(of["room"], of["seq"]) for of in frame["rooms"]]
    return [(frame["room"], frame["seq"])]


class Account:
    """The account of one client, session after session. `name` is the client's."""

    def __init__(self, name, ledger):
        self.name, self.ledger = name, ledger
        self.begin()

    def begin(self):
        """Begins a session."""
        self.client_id = None
        self.rooms = {}
        self.direct_seq = 0
        self.directs = set()
        self.watched = {}
        # Watched rooms of which presence notices were not delivered.
        self.unsure = set()

    def find(self, what, words):
        self.ledger.find(what, self.name, words)

    def _tell(self, room, name, first, last):
        """Notes that the client knows of numbers that it does not get."""
        if first > last:
            return
        room.told.append((first, last))
        self.ledger.counts["told"] += last - first + 1
        told = (self.name, name, room.epoch, first, last, self.ledger.now())
        self.ledger.told.append(told)

    def _miss(self, room, name, first, last):
        """Notes numbers that were passed over: at the end they must be of its own messages."""
        for seq in range(first, last + 1):
            self.ledger.holes.append((self.name, name, room.epoch, seq, self.ledger.now()))

    def on_message(self, frame):
        key = frame["content"]["k"]
        sent = self.ledger.sent.get(key)
        if sent is None:
            return self.find("unknown message", str(frame))
        self.ledger.counts["delivered"] += 1
        pairs = pairs_of(frame)
        if sorted(room for room, _ in pairs) != sorted(sent.rooms):
            self.find("other rooms", f"{key} was for {sent.rooms}, and has {pairs}")
        if sent.fate == "refused":
            self.find("refused and delivered", f"{key} in {pairs}")
        if sent.by == self.name and not sent.echo:
            # It was on the other side of a split since, and knows of no position on this one.
            self.ledger.counts["own messages again"] += 1
        if sent.by == self.name and not sent.echo and not self.ledger.is_split:
            self.find("own message without echo", f"{key} in {pairs}")
        ours = [(name, seq, self.rooms[name]) for name, seq in pairs if name in self.rooms]
        if not ours:
            return self.find("message of a room that it is not in", f"{key} in {pairs}")
        is_new = False
        for name, seq, room in ours:
            if seq <= room.seq:
                continue
            is_new = True
            if seq <= room.answered and sent.by != self.name:
                # A client that takes the answer to its publish for a position drops it.
                self.ledger.counts["overtaken"] += 1
            if key in room.got:
                self.find("published twice", f"{key} in {name}: {room.got[key]} and {seq}")
            self._miss(room, name, room.seq + 1, seq - 1)
            room.seq = seq
            room.got[key] = seq
            self.ledger.number(self.name, name, room.epoch, seq, key)
        if is_new:
            return
        if any(key in room.got for _, _, room in ours):
            several = " of a message to several rooms" if len(pairs) > 1 else ""
            return self.find(f"repeat{several}", f"{key} in {pairs}")
        if any(room.was_told(seq) for _, seq, room in ours):
            # What a repair brings after a message to several rooms was quicker.
            self.ledger.counts["late"] += 1
            return
        words = ", ".join(f"{name} {seq} after {room.seq}" for name, seq, room in ours)
        self.find("out of order", f"{key}: {words}")

    def on_gap(self, frame):
        name = frame["room"]
        room = self.rooms.get(name)
        if room is None:
            return self.find("gap in a room that it is not in", str(frame))
        if frame.get("presence"):
            self.unsure.add(name)
            return
        first, last = frame["from"], frame["to"]
        self._miss(room, name, room.seq + 1, first - 1)
        self._tell(room, name, max(first, room.seq + 1), last)
        room.seq = max(room.seq, last)

    def on_epoch(self, frame):
        name, epoch, seq = frame["room"], frame["epoch"], frame["seq"]
        room = self.rooms.get(name)
        if room is None:
            return self.find("epoch of a room that it is not in", str(frame))
        self.ledger.counts["epochs"] += 1
        was = room.seq
        room.epoch, room.seq, room.answered = epoch, seq, 0
        room.turn += 1
        self._tell(room, name, was + 1, seq)
        # Redis has lost what is above, so it may come again under another number.
        room.got = {key: number for key, number in room.got.items() if number <= seq}
        room.told = [(first, min(last, seq)) for first, last in room.told if first <= seq]

    def on_direct(self, frame):
        key, seq = frame["content"]["k"], frame["seq"]
        self.ledger.counts["directs"] += 1
        words = None
        if key in self.directs:
            words = "repeated"
        elif seq <= self.direct_seq:
            words = "out of order"
        elif seq > self.direct_seq + 1:
            words = "missing"
        if words and self.ledger.is_lossless:
            self.find(f"direct message {words}", f"{key}: {seq} after {self.direct_seq}")
        elif words:
            # There is no word for it when Redis has lost the last numbers.
            self.ledger.counts[f"directs {words}"] += 1
        self.directs.add(key)
        self.direct_seq = seq

    def on_answered(self, sent, turns, frame):
        """Takes the answer to a publish that was sent in these turns of its rooms."""
        sent.fate = "acked"
        for name, seq in pairs_of(frame):
            sent.seqs[name] = seq
            room = self.rooms.get(name)
            if room is None or sent.by != self.name or turns.get(name) != room.turn:
                continue
            room.answered = max(room.answered, seq)

    def _take_over(self, name, asked, answer):
        """Takes a room as the answer to `join` or `resume` has it, after `asked`, a position."""
        epoch, seq, is_recovered = answer["epoch"], answer["seq"], answer["recovered"]
        messages = answer["messages"]
        room = self.rooms.setdefault(name, Room(epoch, seq))
        numbers = [dict(pairs_of(message)).get(name) for message in messages]
        if is_recovered:
            if asked is None or numbers != list(range(asked[1] + 1, seq + 1)):
                words = f"{name}: {asked} to {epoch} {seq} has {numbers}"
                self.find("recovered with a hole", words)
        elif messages:
            self.find("not recovered, with messages", f"{name}: {numbers}")
        if asked and asked[0] == epoch and seq < asked[1]:
            self.find("a position goes back", f"{name} {epoch}: {asked[1]} to {seq}")
        is_same = asked is not None and (is_recovered or asked[0] == epoch)
        if not is_same:
            room.got, room.told = {}, []
        room.turn += 1
        room.epoch, room.seq, room.answered = epoch, seq, 0
        for message, number in zip(messages, numbers):
            key = message["content"]["k"]
            if key not in self.ledger.sent:
                self.find("unknown message", str(message))
                continue
            self.ledger.number(self.name, name, epoch, number, key)
            if key in room.got:
                self.find("repeat", f"{key} in {name}: {room.got[key]}, recovered as {number}")
            room.got[key] = number
        if asked and not is_recovered:
            self.ledger.counts["not recovered"] += 1
            words = f"{name}: {asked} to {epoch} {seq}"
            self.ledger.not_recovered.append((self.name, words, self.ledger.now()))
            if is_same:
                room.told.append((asked[1] + 1, seq))
        if "members" in answer:
            self.watched[name] = {of["client_id"] for of in answer["members"]}

    def on_joined(self, asked, answer):
        self.rooms.pop(answer["room"], None)
        self._take_over(answer["room"], asked, answer)

    def on_left(self, name):
        self.rooms.pop(name, None)
        self.watched.pop(name, None)
        self.unsure.discard(name)

    def positions(self):
        return {name: (room.epoch, room.seq) for name, room in self.rooms.items()}

    def on_resumed(self, asked, answer):
        """Takes the answer to `resume` that was sent with these positions."""
        answered = {of["room"]: of for of in answer["rooms"]}
        for name in asked:
            if name not in answered:
                self.find("a room is forgotten", f"{name} is not in the answer to resume")
                self.on_left(name)
        for name, of in answered.items():
            if "error" in of:
                self.ledger.counts[f"room: {of['error']}"] += 1
                self.ledger.note(self.name, f"{name} is {of['error']}")
                self.on_left(name)
            else:
                self._take_over(name, asked.get(name), of)
                if "members" not in of:
                    self.watched.pop(name, None)
        if not answer["direct"]["recovered"]:
            self.ledger.counts["directs not recovered"] += 1
            # Redis may have lost the last ones, which come again or give their numbers to others.
            self.directs.clear()
            self.direct_seq = min(self.direct_seq, answer["direct"]["seq"])
            if self.ledger.is_lossless:
                self.find("direct messages not recovered", str(answer["direct"]))

    def on_page(self, name, answer):
        """Takes a page of history."""
        numbers = [dict(pairs_of(message)).get(name) for message in answer["messages"]]
        if numbers != sorted(set(numbers)) or numbers and numbers[-1] > answer["seq"]:
            self.find("a page out of order", f"{name} up to {answer['seq']}: {numbers}")
        for message, number in zip(answer["messages"], numbers):
            self.ledger.number(self.name, name, answer["epoch"], number, message["content"]["k"])

    def on_presence(self, frame):
        """Takes a notice of who has come and gone."""
        members = self.watched.get(frame["room"])
        if members is None:
            return
        kind = frame["type"]
        joined = [frame] if kind == "joined" else frame.get("joined", [])
        left = [frame] if kind == "left" else frame.get("left", [])
        members.update(of["client_id"] for of in joined)
        members.difference_update(of["client_id"] for of in left)
