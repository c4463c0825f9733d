"""A contract judges alike however many other contracts live in the process: nothing depends on the size of a cache."""

import attrs

from cutover.contract import ANYTHING, StreamContract
from cutover.contract.chunks import OBJECT, STRING, ChunkSchema, Field, optional
from tests.support.own_streams import chunk, event, found, rules_of

MANY = 320
"""More than any cache holds."""


def by_schema(number: int) -> StreamContract:
    schema = ChunkSchema(
        kinds={"a": {"id": Field(STRING), "value": Field(OBJECT)}, f"k{number}": {}},
        families={"data-": {"data": optional(OBJECT)}},
    )
    return StreamContract(name=f"schema {number}", chunks=schema)


def test_a_forbidden_key_is_found_in_each_of_many_schemas() -> None:
    contracts = [by_schema(number) for number in range(MANY)]
    forbidden = event('{"type":"a","id":"1","value":{"__proto__":1}}')
    in_family = event('{"type":"data-x","data":{"__proto__":1}}')
    # A few dozen others come between two streams of a contract, and then all the others.
    again = [each for at, new in enumerate(contracts) for each in (new, contracts[max(at - 40, 0)])]
    for contract in (*again, *contracts):
        assert rules_of(contract, forbidden) == ["json.prototype"], contract.name
        assert rules_of(contract, chunk("data-x", data={}), in_family) == ["json.prototype"], contract.name


def test_many_contracts_keep_their_order_parts_and_counts() -> None:
    contracts = [
        StreamContract(
            name=f"{number}",
            chunks={"a": ANYTHING, "b": ANYTHING, f"k{number}": ANYTHING},
            order=f"a .* k{number}",
            each=f"a b k{number}? by id",
        )
        for number in range(MANY)
    ]
    for number, contract in [*enumerate(contracts), *enumerate(contracts)]:
        good = chunk("a", id=1), chunk("b", id=1), chunk(f"k{number}", id=1)
        assert found(contract, *good) == []
        assert rules_of(contract, good[0], good[2]) == ["order.unexpected"]


def test_the_kinds_of_one_contract_do_not_become_those_of_another_that_shares_its_table() -> None:
    """Two contracts may need the same kind, with a shape and without one, and either may come first."""
    odd = event("[]", "b")
    for first in (True, False):
        base = StreamContract(name="x", chunks=dict[str, str], kind="/event", order="a* b?")
        with_error = attrs.evolve(base, order="a*", error="b")
        contracts = (base, with_error) if first else (with_error, base)
        rules = {each.error is None: rules_of(each, odd) for each in contracts}
        assert rules == {True: ["schema.field-type"], False: ["stream.service-error"]}
