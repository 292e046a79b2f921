"""Reads an environment file by the rules that systemd.exec(5) gives for EnvironmentFile=.

Enough of them for what an installer writes: one assignment a line, a value in double, single or no quotes.
"""

WHITE = " \t\r"


def environment_file(text):
    """The variables of a file, by name."""
    variables = {}
    for line in text.split("\n"):
        line = line.strip(WHITE)
        if line and line[0] not in "#;" and "=" in line:
            name, _, value = line.partition("=")
            variables[name.rstrip(WHITE)] = unquoted(value.lstrip(WHITE))
    return variables


def unquoted(text):
    quote = text[:1]
    if quote == "'":
        value, end, rest = text[1:].partition("'")
        assert end and not rest.strip(WHITE), f"more than one piece: {text}"
        return value
    # Within double quotes a backslash takes what it takes in a shell's, outside of them anything; there, quotes behind
    # the first character are letters as well.
    escapable, value, at = ('"\\`$', "", 1) if quote == '"' else (None, "", 0)
    while at < len(text):
        letter = text[at]
        if letter == '"' and quote == '"':
            assert not text[at + 1 :].strip(WHITE), f"more than one piece: {text}"
            return value
        if letter == "\\":
            assert at + 1 < len(text), "the next line is part of this one"
            at += 1
            letter = text[at] if escapable is None or text[at] in escapable else letter + text[at]
        value += letter
        at += 1
    assert quote != '"', f"the quotes are not closed: {text}"
    return value
