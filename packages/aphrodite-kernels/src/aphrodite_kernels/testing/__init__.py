"""The conformance suite: what every backend must compute, in this tree or out of it.

    @pytest.mark.parametrize("case", conformance_cases(), ids=str)
    def test_conforms(case):
        case.check(my_backend)

Each case draws random inputs in the backend's dtype, runs one op of the backend and of the
reference, and compares. It knows nothing of how a backend works, and does not need pytest.
"""

from aphrodite_kernels.testing.bends import bend_cases
from aphrodite_kernels.testing.case import Case
from aphrodite_kernels.testing.company import company_cases
from aphrodite_kernels.testing.heads import attention_cases, rotate_and_store_cases
from aphrodite_kernels.testing.keeps import keep_cases
from aphrodite_kernels.testing.kinds.ggml import random_blocks
from aphrodite_kernels.testing.paths import path_cases
from aphrodite_kernels.testing.products import matmul_cases
from aphrodite_kernels.testing.programs import check_capture
from aphrodite_kernels.testing.rows import check_uniform, locate_cases, row_cases
from aphrodite_kernels.testing.shapes import shape_cases
from aphrodite_kernels.testing.tokens import token_cases

__all__ = ["Case", "company_cases", "conformance_cases", "random_blocks"]


def conformance_cases() -> list[Case]:
    """Every case, in a fixed order; names are unique."""
    return [
        *matmul_cases(),
        *row_cases(),
        *locate_cases(),
        *rotate_and_store_cases(),
        *attention_cases(),
        Case("uniform", check_uniform),
        *token_cases(),
        *keep_cases(),
        *shape_cases(),
        *bend_cases(),
        *path_cases(),
        Case("capture", check_capture),
    ]
