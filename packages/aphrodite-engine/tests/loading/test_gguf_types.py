"""A GGUF file that holds what nobody can decode is refused before its weights are read."""

import gguf
import numpy
import pytest
from aphrodite_engine.loading.model import open_model
from aphrodite_quant import TensorError


def test_a_type_without_decoder_is_refused_at_once(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    blocks = numpy.zeros((1, 292), numpy.uint8)
    kind = gguf.GGMLQuantizationType.Q8_K
    writer.add_tensor("blk.31.ffn_down.weight", blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(TensorError, match=r"blk.31.ffn_down.weight.* type Q8_K is not supp"):
        open_model(tmp_path / "m.gguf")
