# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""The environment without this package, made once."""

import pytest
from environments import make_bare_environment


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory) -> str:
    return make_bare_environment(tmp_path_factory.mktemp("bare"))
