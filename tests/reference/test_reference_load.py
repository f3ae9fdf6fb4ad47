"""Loading by name, and staying away from torch until then."""

import subprocess
import sys

import pytest

from ptmkb.reference import load


def test_loads_a_model_by_file_and_class():
    model_class = load("transformer_xl", "TransformerXL")
    assert model_class.__name__ == "TransformerXL"
    assert model_class.config_class.__name__ == "TransformerXLConfig"


@pytest.mark.parametrize("module", ["gpt9", "blocks.x", "../elmo", ""])
def test_unknown_file_is_named_in_the_error(module):
    with pytest.raises(LookupError, match="no reference implementation"):
        load(module, "Model")


@pytest.mark.parametrize("name", ["Nothing", "ELMoConfig", "torch", "ScalarMix"])
def test_what_is_not_a_model_is_refused(name):
    with pytest.raises(LookupError, match=rf"elmo\.py has no model class '{name}'"):
        load("elmo", name)


def test_importing_the_package_does_not_import_torch():
    code = "import sys, ptmkb.reference; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_torch_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from ptmkb.reference import load\n"
        "try: load('elmo', 'ELMo')\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ptmkb[probe]" in result.stdout, result.stderr
