"""Stages that read the history, and bans: cases, and their definitions in float64."""

from array import array

from aphrodite_engine.sampling.breakers import Breaker
from aphrodite_engine.sampling.stages.allowed_token_ids import AllowedTokenIds
from aphrodite_engine.sampling.stages.bad_words import BadWords
from aphrodite_engine.sampling.stages.ban_eos_token import BanEosToken
from aphrodite_engine.sampling.stages.banned_strings import BannedStrings
from aphrodite_engine.sampling.stages.custom_token_bans import CustomTokenBans
from aphrodite_engine.sampling.stages.dry import Dry
from aphrodite_engine.sampling.stages.no_repeat_ngram import NoRepeatNgram
from aphrodite_engine.sampling.stages.penalties import Penalties
from aphrodite_engine.sampling.stages.token_ban_ranges import TokenBanRanges

_INF = float("inf")


def breaker(heads, tail=()):
    return Breaker(array("i", sorted(heads)).tobytes(), tuple(tail))


# At work, with values that change something on most logits.
CASES = {
    "allowed_token_ids": [AllowedTokenIds((0, 3, 5)), AllowedTokenIds((2,))],
    "bad_words": [BadWords(("a",), ((3,), (1, 4), (9, 9, 5))), BadWords(("b",), ((4, 0),))],
    "ban_eos_token": [BanEosToken(ban_eos_token=True, ends=ends) for ends in ((2,), (1, 4, 7))],
    "banned_strings": [BannedStrings(("a",), place=place, tokens=(0, 5, 5)) for place in range(40)],
    "custom_token_bans": [CustomTokenBans((0, 5)), CustomTokenBans((1, 1, 4))],
    "dry": [
        Dry(0.8),
        Dry(2.0, 1.3, 1, breakers=(breaker([7, 3]),)),
        Dry(1.0, 2.0, 0, breakers=(breaker([8, 9], [4]), breaker([2], [1, 0]))),
        Dry(1.5, 1.75, 2, dry_range=12),
    ],
    "no_repeat_ngram": [NoRepeatNgram(1), NoRepeatNgram(2), NoRepeatNgram(3)],
    "token_ban_ranges": [
        TokenBanRanges((((0, 3), 0, 1), ((5,), 2, 20))),
        TokenBanRanges((((1, 2), 1, 0), ((4, 1, 4), 0, 1000))),
    ],
    "penalties": [
        Penalties(1.3, 0.5, 0.25, rep_pen_range=17),
        Penalties(1.3, rep_pen_slope=0.4),
        Penalties(0.7, -0.5, 0.1, 20, 0.9),
        Penalties(presence_penalty=1.0, rep_pen_range=1),
        Penalties(1.5, 0.1, rep_pen_range=4, rep_pen_slope=0.5, repetition_decay=6),
    ],
}
NAMING = AllowedTokenIds | BadWords | BanEosToken | BannedStrings | CustomTokenBans | TokenBanRanges
"""They name tokens that are not in every vocabulary."""


def definition(stage, x, prompt, output):
    """One row, float64."""
    known = [*prompt, *output]
    match stage:
        case Penalties():
            return penalised(stage, x, known, len(prompt))
        case Dry():
            return dry(stage, x, known)
        case NoRepeatNgram():
            return banned(x, repeating(known, stage.no_repeat_ngram_size))
        case BannedStrings():
            return banned(x, stage.tokens if len(known) == stage.place else ())
        case BanEosToken():
            return banned(x, stage.ends)
        case CustomTokenBans():
            return banned(x, stage.custom_token_bans)
        case AllowedTokenIds():
            return banned(x, set(range(len(x))) - set(stage.allowed_token_ids))
        case BadWords():
            ends = [
                each[-1]
                for each in stage.bad_tokens
                if len(each) == 1 or tuple(output[-len(each) + 1 :]) == each[:-1]
            ]
            return banned(x, ends)
        case TokenBanRanges():
            at = len(output)
            now = [
                token
                for tokens, start, length in stage.token_ban_ranges
                for token in tokens
                if start <= at < start + length
            ]
            return banned(x, now)
    raise AssertionError(stage)


def banned(x, tokens):
    out = x.copy()
    out[list(tokens)] = -_INF
    return x if (out == -_INF).all() else out


def repeating(known, n):
    end = known[len(known) - n + 1 :]
    return {known[i + n - 1] for i in range(len(known) - n + 1) if known[i : i + n - 1] == end}


def penalised(stage, x, known, prompt):
    start = max(0, len(known) - stage.rep_pen_range) if stage.rep_pen_range else 0
    window, output = known[start:], known[max(start, prompt) :]
    newer = window[len(window) // 2 :]
    for token in set(known):
        r = stage.repetition_penalty
        since = start - max(at for at, each in enumerate(known) if each == token)
        if token not in newer:
            r = 1 + (r - 1) * stage.rep_pen_slope
        if token not in window:
            r = 1 + (r - 1) * max(0, 1 - since / (stage.repetition_decay + 1))
        x[token] = x[token] / r if x[token] > 0 else x[token] * r
    for token in set(output):
        x[token] -= stage.presence_penalty + stage.frequency_penalty * output.count(token)
    return x


def dry(stage, x, known):
    known = known[-stage.dry_range :]
    pairs = [
        (head, list(each.tail))
        for each in stage.breakers
        for head in memoryview(each.heads).cast("i")
    ]
    best, since = {}, since_breaker(known, pairs)
    for at in range(1, len(known)):
        length = 0
        while length < min(at, since):
            if known[at - 1 - length] != known[-1 - length]:
                break
            length += 1
        best[known[at]] = max(length, best.get(known[at], 0))
    for token, length in best.items():
        if length >= max(1, stage.dry_allowed_length) and (token, []) not in pairs:
            x[token] -= stage.dry_multiplier * stage.dry_base ** (length - stage.dry_allowed_length)
    return x


def since_breaker(known, pairs):
    """Tokens after the youngest breaker, of several with one beginning the longest."""
    for age in range(len(known)):
        head, after = known[-1 - age], known[len(known) - age :]
        lengths = [len(t) for h, t in pairs if h == head and after[: len(t)] == t]
        if lengths:
            return age - max(lengths)
    return len(known)
