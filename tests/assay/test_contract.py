"""The contract: stubs match it, every request field is bounded, and the validators refuse what it forbids."""

import ast
import importlib
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import protovalidate
import pytest
from cel_expr_python import cel
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.message import Message

import assay.v1
from assay import contract, protogen
from assay.errors import FieldViolation, IntegrityError, InvalidInputError
from assay.v1 import approval_pb2, audit_pb2, dataset_pb2, permit_pb2, policy_input_pb2, policy_pb2, tuning_job_pb2
from assay.v1._vendor.buf.validate import validate_pb2

_ROOT = Path(__file__).parents[2]
_SERVICES = {
    "ApprovalService",
    "AuditService",
    "DatasetService",
    "ErasureService",
    "IdentityService",
    "LineageService",
    "ModelService",
    "PermitService",
    "PolicyService",
    "TuningJobService",
    "WorkerService",
}


def _files() -> Iterator[FileDescriptor]:
    for module in pkgutil.iter_modules(assay.v1.__path__):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(f"assay.v1.{module.name}").DESCRIPTOR


def _methods() -> list[MethodDescriptor]:
    return [m for file in _files() for service in file.services_by_name.values() for m in service.methods]


def _request() -> tuning_job_pb2.CreateTuningJobRequest:
    return tuning_job_pb2.CreateTuningJobRequest(
        parent="units/support",
        tuning_job_id="first",
        dataset="units/support/datasets/replies",
        base_model="smollm2-135m-instruct",
        purpose="support-replies",
        method="lora",
        budget=tuning_job_pb2.Budget(max_usd_micros=1_000_000, max_train_tokens=40_000),
        audit_profile="quick",
        request_id="6f1e5a8e-0d5b-4f0e-9d2e-0f9a3c1b2d4e",
    )


def test_the_services_are_those_of_the_contract() -> None:
    assert {name for file in _files() for name in file.services_by_name} == _SERVICES


def test_a_good_request_is_accepted() -> None:
    protovalidate.validate(_request())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("parent", "units/Support"),
        ("parent", "units/../etc"),
        ("parent", "units/support\n"),
        ("tuning_job_id", "x" * 64),
        ("tuning_job_id", ""),
        ("dataset", "units/support/datasets/a/b"),
        ("base_model", "../../weights"),
        ("purpose", "Support replies"),
        ("method", "dora"),
        ("audit_profile", "none"),
        ("request_id", "not-a-uuid"),
        ("request_id", ""),
    ],
)
def test_a_bad_field_is_refused_by_name(field: str, value: str) -> None:
    request = _request()
    setattr(request, field, value)
    with pytest.raises(protovalidate.ValidationError) as caught:
        protovalidate.validate(request)
    named = {e.field_name for v in caught.value.violations if v.proto.field for e in v.proto.field.elements}
    assert field in named


def test_a_method_that_is_not_offered_is_refused_with_those_that_are() -> None:
    request = _request()
    for method in ("full", "qlora"):
        request.method = method
        protovalidate.validate(request)
    request.method = "dora"
    with pytest.raises(protovalidate.ValidationError, match=r"must be in list \[lora, qlora, full, distillation"):
        protovalidate.validate(request)


@pytest.mark.parametrize("rate", [0.0, -1.0, 1.0, float("nan"), float("inf")])
def test_a_learning_rate_outside_its_bounds_is_refused(rate: float) -> None:
    request = _request()
    request.hyperparameters.learning_rate = rate
    with pytest.raises(protovalidate.ValidationError, match="learning_rate"):
        protovalidate.validate(request)


def test_a_request_without_budget_is_refused() -> None:
    request = _request()
    request.ClearField("budget")
    with pytest.raises(protovalidate.ValidationError, match="budget"):
        protovalidate.validate(request)


def test_a_protected_attribute_can_be_named_in_a_comparison() -> None:
    """``impact_ratio[race,ethnicity]`` is of two columns: one of that name was compared with nobody, after training."""
    protovalidate.validate(dataset_pb2.Datasheet(sensitive_attributes=["race", "Age group (years)"]))
    for name in ("race,ethnicity", "race=", "[race"):
        with pytest.raises(protovalidate.ValidationError, match="sensitive_attributes"):
            protovalidate.validate(dataset_pb2.Datasheet(sensitive_attributes=["race", name]))


def test_an_upload_part_must_be_set_and_a_chunk_must_be_small() -> None:
    for bad in (dataset_pb2.UploadDatasetRequest(), dataset_pb2.UploadDatasetRequest(chunk=b"x" * 262_145)):
        with pytest.raises(protovalidate.ValidationError):
            protovalidate.validate(bad)
    protovalidate.validate(dataset_pb2.UploadDatasetRequest(chunk=b"x" * 262_144))


LATER = b"\x78\x01"
"""Field 15, a number; protobuf keeps it, and shows it to nobody."""


def _told(request: Message) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        contract.check(request)
    return caught.value


def test_a_condition_of_a_later_contract_is_refused_by_its_number() -> None:
    asked = permit_pb2.CheckPermitRequest(
        name="units/credit/permits/" + "a" * 32, adapter_sha256="a" * 64, base_sha256="b" * 64, purpose="p",
        environment="staging",
    )  # fmt: skip
    contract.check(asked)
    error = _told(permit_pb2.CheckPermitRequest.FromString(asked.SerializeToString() + LATER + b"\xa2\x06\x05EU-FR"))
    assert error.reason == "UNKNOWN_FIELDS" and "upgrade the gateway before its clients" in error.remedy
    assert error.violations == (FieldViolation("(message)", "not known here: field 15, 100"),)
    assert "EU-FR" not in error.diagnostics()


def test_unknown_fields_are_found_wherever_they_are() -> None:
    """In a message, in one of several, in a map's value, in a oneof; each place is named once for its path."""
    privacy = policy_input_pb2.DifferentialPrivacy.FromString(LATER)
    nested = _request()
    nested.differential_privacy.CopyFrom(privacy)
    assert [v.field for v in _told(nested).violations] == ["differential_privacy"]
    signed = approval_pb2.WaiveRulesRequest()
    for _ in range(3):
        signed.envelope.signatures.add().ParseFromString(LATER)
    assert [v.field for v in _told(signed).violations] == ["envelope.signatures"]
    question = policy_pb2.EvaluatePolicyRequest()
    question.release.measurements["loss"].ParseFromString(LATER)
    question.release.plan.ParseFromString(LATER)
    assert [v.field for v in _told(question).violations] == ["release.plan", "release.measurements"]
    part = dataset_pb2.UploadDatasetRequest.FromString(LATER)
    assert _told(part).reason == "UNKNOWN_FIELDS", "not that no part is set: a later contract may have another"


def test_no_more_of_a_message_is_looked_through_than_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the event loop, before anybody is authorised: 4 MiB hold 1.4 million unknown fields, or empty messages."""
    looked, within = [], contract._within

    def counted(message: Message, path: str) -> Iterator[tuple[str, Message]]:
        looked.append(path)
        yield from within(message, path)

    monkeypatch.setattr(contract, "_within", counted)
    wide = approval_pb2.WaiveRulesRequest()
    for _ in range(5000):
        wide.envelope.signatures.add()
    assert _told(wide).reason == "INVALID_FIELDS" and looked == [], "nothing unknown, so nothing is looked for"
    wide.envelope.signatures[-1].ParseFromString(LATER)
    assert [v.field for v in _told(wide).violations] == ["(message)"] and len(looked) == contract._LOOKED_THROUGH
    looked.clear()
    many = b"".join(bytes([(number << 3) & 0x7F | 0x80, number >> 4, 1]) for number in range(16, 2000))
    wide.MergeFromString(many)
    (told,) = _told(wide).violations
    assert told.description.count(",") == contract.MAX_VIOLATIONS - 1 and looked == [""]
    monkeypatch.setattr(contract, "UnknownFieldSet", None)
    wide.MergeFromString(LATER * 5000)
    assert [v.description for v in _told(wide).violations] == ["15954 bytes of fields not known here"]


def test_a_message_with_thousands_of_faults_is_told_one_and_a_small_one_all() -> None:
    """Each takes 40 µs to tell, and 400 kB hold 600,000: the gateway would stand still for half a minute."""
    large, small = approval_pb2.WaiveRulesRequest(), approval_pb2.WaiveRulesRequest()
    for _ in range(5000):
        large.envelope.signatures.add()
    assert [v.field for v in _told(large).violations] == ["name"]
    assert {v.field for v in _told(small).violations} >= {"name", "etag", "envelope", "reason"}


def test_a_page_of_any_size_may_be_asked_for() -> None:
    """As the contract says, more than 200 is coerced."""
    contract.check(audit_pb2.ListRecordsRequest(parent="units/-", page_size=100_000))
    assert [v.field for v in _told(audit_pb2.ListRecordsRequest(parent="units/-", page_size=-1)).violations] == [
        "page_size"
    ]


def _unbounded(message: Descriptor, seen: set[str]) -> Iterator[str]:
    if message.full_name in seen or message.full_name.startswith("google.protobuf."):
        return
    seen.add(message.full_name)
    for field in message.fields:
        if field.message_type is not None:
            yield from _unbounded(field.message_type, seen)
        # A boolean has no bad value, and policy must see a measured NaN to refuse it.
        free = field.type in (FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_DOUBLE)
        single = field.message_type is not None and not field.is_repeated
        ruled = field.GetOptions().HasExtension(validate_pb2.field)  # type: ignore[arg-type]
        if not (free or single or ruled or message.GetOptions().map_entry):
            yield field.full_name


def test_every_field_that_a_request_may_carry_is_bounded() -> None:
    seen: set[str] = set()
    assert [name for method in _methods() for name in _unbounded(method.input_type, seen)] == []
    assert len(seen) > 40


def test_cel_evaluates_over_typed_messages_beside_the_validator() -> None:
    name = policy_input_pb2.DataFacts.DESCRIPTOR.full_name
    env = cel.NewEnv(descriptor_pool.Default(), variables={"data": cel.Type(name)})
    protovalidate.validate(policy_input_pb2.DataFacts(rows=3))
    rule = env.compile("data.rows > 2 && data.pii_row_share <= 0.5")
    assert rule.eval(data={"data": policy_input_pb2.DataFacts(rows=3)}).value() is True
    assert rule.eval(data={"data": policy_input_pb2.DataFacts(rows=2)}).value() is False


def _published() -> FileDescriptorProto:
    """The descriptor inside the protovalidate wheel, read without importing it."""
    spec = find_spec("protovalidate")
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "_gen/buf/validate/validate_pb.py").read_text()
    found = [
        node.value.args[0].value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.args[0], ast.Constant)
        and isinstance(node.value.args[0].value, bytes)
    ]
    assert len(found) == 1
    return FileDescriptorProto.FromString(found[0])


def _without_json_names(message: DescriptorProto) -> None:
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        _without_json_names(nested)


def test_the_vendored_contract_is_what_protovalidate_publishes() -> None:
    ours, theirs = FileDescriptorProto(), _published()
    validate_pb2.DESCRIPTOR.CopyToProto(ours)
    # protoc fills these in by the default rule, and keeps them or not by the consumer.
    for file in (ours, theirs):
        for field in file.extension:
            field.ClearField("json_name")
        for message in file.message_type:
            _without_json_names(message)
    assert ours == theirs


def test_no_package_called_buf_is_needed() -> None:
    code = "import sys, assay.v1.tuning_job_pb2; sys.exit('buf' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=_ROOT)


def test_the_committed_stubs_do_not_drift() -> None:
    assert protogen.drift(_ROOT, protogen.generate(_ROOT)) == []


def test_drift_finds_changed_missing_and_left_over_stubs(tmp_path: Path) -> None:
    shutil.copytree(_ROOT / "assay" / "v1", tmp_path / "assay" / "v1", ignore=shutil.ignore_patterns("__pycache__"))
    files = protogen.generate(_ROOT)
    v1 = Path("assay/v1")
    (tmp_path / v1 / "audit_pb2.pyi").write_text("")
    (tmp_path / v1 / "model_pb2_grpc.py").unlink()
    (tmp_path / v1 / "gone_pb2.py").write_text("")
    wrong = [v1 / "audit_pb2.pyi", v1 / "gone_pb2.py", v1 / "model_pb2_grpc.py"]
    assert protogen.drift(tmp_path, files) == wrong
    protogen.write(tmp_path, files)
    assert protogen.drift(tmp_path, files) == []


def test_a_contract_that_does_not_compile_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "protos").mkdir()
    (tmp_path / "protos" / "bad.proto").write_text('syntax = "proto3"; message M { Nowhere n = 1; }')
    with pytest.raises(IntegrityError) as caught:
        protogen.generate(tmp_path)
    assert caught.value.reason == "PROTOC_FAILED"
