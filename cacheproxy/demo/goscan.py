"""Why a body is no JSON, in the words of Go's encoding/json (scanner.go), for the simulated Ollama.

Only bodies that Python's parser refused come here; it names the byte Go would name and reads no values.
"""

from __future__ import annotations

from typing import NoReturn

_WHITESPACE = b" \t\r\n"
_DIGITS = b"0123456789"
_HEXDIGITS = b"0123456789abcdefABCDEF"


class GoJsonError(ValueError):
    """The body is not what the route reads; the text is Go's own."""


class _Scanner:
    """Walks bytes that Python refused, to find the byte Go would name. One frame on `stack` per open bracket."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0

    def peek(self) -> int:
        if self.at >= len(self.body):
            raise GoJsonError("unexpected EOF")
        return self.body[self.at]

    def skip_space(self) -> int:
        while self.peek() in _WHITESPACE:
            self.at += 1
        return self.peek()

    def fail(self, context: str) -> NoReturn:
        char = chr(self.body[self.at])
        quoted = {"'": r"'\''", '"': "'\"'"}.get(char) or f"'{_go_quoted_char(char)}'"
        raise GoJsonError(f"invalid character {quoted} {context}")

    def string(self) -> None:
        self.at += 1
        while (byte := self.peek()) != ord('"'):
            if byte < 0x20:
                self.fail("in string literal")
            self.at += 1
            if byte == ord("\\"):
                self.escape()
        self.at += 1

    def escape(self) -> None:
        byte = self.peek()
        if byte not in b'bfnrt\\/"u':
            self.fail("in string escape code")
        self.at += 1
        if byte == ord("u"):
            for _ in range(4):
                if self.peek() not in _HEXDIGITS:
                    self.fail("in \\u hexadecimal character escape")
                self.at += 1

    def digits(self, context: str) -> None:
        if self.peek() not in _DIGITS:
            self.fail(context)
        while self.at < len(self.body) and self.body[self.at] in _DIGITS:
            self.at += 1

    def number(self) -> None:
        if self.peek() == ord("-"):
            self.at += 1
        if self.peek() == ord("0"):
            self.at += 1
        else:
            self.digits("in numeric literal")
        if self.body[self.at : self.at + 1] == b".":
            self.at += 1
            self.digits("after decimal point in numeric literal")
        if self.body[self.at : self.at + 1] in (b"e", b"E"):
            self.at += 1
            if self.peek() in b"+-":
                self.at += 1
            self.digits("in exponent of numeric literal")

    def word(self, word: bytes) -> None:
        for expected in word:
            if self.peek() != expected:
                self.fail(f"in literal {word.decode()} (expecting '{chr(expected)}')")
            self.at += 1

    def value(self, stack: list[int]) -> None:
        """Read one scalar, or open one bracket and push it."""
        byte = self.skip_space()
        if byte in b"{[":
            stack.append(byte)
            self.at += 1
        elif byte == ord('"'):
            self.string()
        elif byte in b"-0123456789":
            self.number()
        elif (word := {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}.get(byte)) is not None:
            self.word(word)
        else:
            self.fail("looking for beginning of value")

    def key(self) -> None:
        if self.skip_space() != ord('"'):
            self.fail("looking for beginning of object key string")
        self.string()
        if self.skip_space() != ord(":"):
            self.fail("after object key")
        self.at += 1

    def run(self) -> None:
        stack: list[int] = []
        self.value(stack)
        opened = True
        while stack:
            kind = stack[-1]
            closing = ord("}") if kind == ord("{") else ord("]")
            byte = self.skip_space()
            if byte == closing:
                self.at += 1
                stack.pop()
                opened = False
                continue
            if not opened:
                if byte != ord(","):
                    self.fail("after object key:value pair" if kind == ord("{") else "after array element")
                self.at += 1
            depth = len(stack)
            if kind == ord("{"):
                self.key()
            self.value(stack)
            opened = len(stack) > depth


def _go_quoted_char(char: str) -> str:
    named = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v", "\\": r"\\"}
    if char in named:
        return named[char]
    if char < " " or char == "\x7f":
        return f"\\x{ord(char):02x}"
    return char if char.isprintable() else f"\\u{ord(char):04x}"


def complain(body: bytes) -> None:
    """Raise what Go says of `body`, or return if Go takes it (ints too long for Python)."""
    _Scanner(body).run()


def go_quoted(text: str) -> str:
    """Return `text` as Go's %q prints it (enough for model names and paths)."""
    return '"' + "".join(_go_quoted_char(char) if char != '"' else '\\"' for char in text) + '"'
