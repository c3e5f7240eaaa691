"""Every stage is described as it is declared."""

import msgspec
import pytest
from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling.catalog import stage_fields, stages, stages_from
from aphrodite_engine.sampling.description import describe

FIELDS = {field.name: field for each in describe().samplers for field in each.fields}


def test_every_field_of_every_stage_is_described_in_default_order():
    wire = [stage for stage in stages() if stage.wire]
    assert [each.name for each in describe().samplers] == [stage.name() for stage in wire]
    for each, stage in zip(describe().samplers, wire, strict=True):
        declared = [field.name for field in stage_fields() if field.stage is stage]
        assert [field.name for field in each.fields] == declared
        assert each.docs


@pytest.mark.parametrize("declared", stage_fields(), ids=lambda each: each.name)
def test_a_description_is_the_declaration(declared):
    described, field = FIELDS[declared.name], declared.field
    assert described.aliases == list(declared.aliases)
    assert described.default == field.default
    assert described.docs == field.doc
    limits = ("minimum", "exclusive_minimum", "maximum", "exclusive_maximum")
    assert sum(getattr(described, name) is not None for name in limits) == len(field.bounds)
    assert (described.step is not None) == (field.type in (int, float))


@pytest.mark.parametrize("described", FIELDS.values(), ids=lambda each: each.name)
def test_off_values_are_off_and_limits_hold(described):
    for value in described.off:
        assert stages_from({described.name: value}) == ()
    for limit, beyond in ((described.minimum, -2), (described.maximum, 1)):
        if limit is not None:
            stages_from({described.name: limit})
            with pytest.raises(RequestError, match=described.name):
                stages_from({described.name: limit + beyond})


def test_parameters_have_no_off_value_and_switches_have():
    assert FIELDS["top_k"].off == [0, -1]
    assert FIELDS["logit_bias"].off == [{}]
    assert FIELDS["temperature"].off == [1]
    for stage in describe().samplers:
        assert any(field.off for field in stage.fields), stage.name


def test_types_in_words():
    assert FIELDS["top_k"].type == "integer"
    assert FIELDS["logit_bias"].type == "map from token id to number"
    (priority, last) = describe().order
    assert priority.type == "list of strings or integers"
    assert priority.aliases == ["sampler_order"]
    assert last.off == [False]


def test_numbers_are_those_of_the_order():
    numbers = {each.name: each.number for each in describe().samplers}
    assert numbers["top_k"] == numbers["top_p"] == 0
    assert numbers["penalties"] == 6
    assert numbers["logit_bias"] is None


def test_it_is_json():
    assert msgspec.json.decode(msgspec.json.encode(describe()))["samplers"]
