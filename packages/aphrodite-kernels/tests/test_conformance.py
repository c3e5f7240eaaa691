import pytest
import torch
from aphrodite_kernels.backends import reference
from aphrodite_kernels.testing import conformance_cases

CASES = conformance_cases()


def test_case_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_conforms(case):
    case.check(reference.create(torch.device("cpu"), threads=None, dtype=None))
