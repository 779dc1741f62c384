# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""What a user of the command line reads of an error: one line of a refusal, all of what came amid the work."""

import pytest
from huggingface_hub.errors import HTTPError

from diffusers_vilearn.errors import named_if_absent, noted, refusals_in_one_line


@pytest.mark.parametrize("kind", [ValueError, OSError, ImportError, HTTPError])
def test_a_refusal_is_one_line(kind):
    with pytest.raises(SystemExit, match=r"^Error: no such mesh$"), refusals_in_one_line():
        raise kind("no such mesh")
    with pytest.raises(SystemExit, match=rf"^Error: {kind.__name__}\(.*\)$"), refusals_in_one_line():
        raise kind("")


def test_other_errors_and_those_with_notes_keep_their_traceback():
    with pytest.raises(KeyError), refusals_in_one_line():
        raise KeyError("a bug")
    with pytest.raises(ValueError, match="too few values") as caught, refusals_in_one_line(), noted("At view 3."):
        raise ValueError("too few values")
    assert caught.value.__notes__ == ["At view 3."]


def test_what_is_not_there_is_named_but_not_what_the_disk_says(tmp_path):
    with pytest.raises(ValueError, match=r"^There is no folder 'a/b', and no VAE of that name could be reached"):
        with named_if_absent("VAE", "a/b"):
            raise OSError("We could not connect")
    for name, error in ((str(tmp_path), OSError("no config.json")), ("a/b", OSError(28, "No space left on device"))):
        with pytest.raises(OSError, match=r"no config.json|No space left"), named_if_absent("VAE", name):
            raise error
