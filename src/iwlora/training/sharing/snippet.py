"""The Python code of a model card: it loads what was exported, and predicts."""

from __future__ import annotations

from iwlora.tasks import Task

_READ_LOGITS = {
    "classification": "print(labels[logits.argmax(-1).item()])",
    "multi-label": "print([name for name, p in zip(labels, logits[0].sigmoid()) if p > 0.5])",
    "regression": "print(logits.item())",
    "token-labels": "print([labels[k] for k in logits[0].argmax(-1)])  # one for each token",
}

_OPEN_IMAGE = (
    'image = ImageOps.exif_transpose(Image.open("an image.jpg")).convert("RGB")  # upright'
)


def snippet(
    task: Task, base: str, auto_class: str, form: str, max_length: int, new_tokens: bool
) -> str:
    """Python code that runs in the exported folder.

    Args:
        task: What was learned.
        base: The name of the base model on the hub; "" for one that is not there.
        auto_class: The Auto class of transformers that loads the model.
        form: "peft", "iwlora" for an adapter that PEFT does not know, "transformers" for a model.
        max_length: The longest row in tokens.
        new_tokens: Whether the tokenizer has tokens that the base model lacks.
    """
    if task.kind.processor == "codes":
        return _of_codes(task)
    auto_processor = "AutoImageProcessor" if task.kind.reads_images else "AutoTokenizer"
    imports = ["import torch", f"from transformers import {auto_class}, {auto_processor}"]
    if task.kind.reads_images:
        imports.insert(0, "from PIL import Image, ImageOps")
    if form == "peft":
        imports.insert(1, "from peft import PeftModel")
    if form == "iwlora":
        imports.insert(1, "import iwlora")
    folder = 'folder = "."  # this folder, or its name on the hub'
    lines = [*imports, "", folder]
    if task.labels:
        lines.append(f"labels = {list(task.labels)!r}")
    if task.kind.reads_images:
        lines.append('processor = AutoImageProcessor.from_pretrained(folder, backend="pil")')
    else:
        lines.append("tokenizer = AutoTokenizer.from_pretrained(folder)")
    if form == "transformers":
        lines.append(f"model = {auto_class}.from_pretrained(folder).eval()")
    else:
        head = f", num_labels={len(task.labels) or 1}" if _kind(task) in _READ_LOGITS else ""
        lines += [
            f"base_name = {base or 'the base model'!r}",
            f"base = {auto_class}.from_pretrained(base_name{head})",
        ]
        if new_tokens:
            lines.append("base.resize_token_embeddings(len(tokenizer))")
        load = "PeftModel.from_pretrained" if form == "peft" else "iwlora.load_adapter"
        lines.append(f"model = {load}(base, folder).eval()")
    return "\n".join([*lines, "", *_predict(task, max_length)]) + "\n"


def _of_codes(task: Task) -> str:
    """The code for a model of image codes, which this library alone loads."""
    return f"""import torch
from PIL import Image, ImageOps
from transformers import AutoConfig

from iwlora.image_tokens.codebooks.load import load_codebook
from iwlora.image_tokens.models import MODELS

folder = "."  # this folder
labels = {list(task.labels)!r}
processor = load_codebook(folder)
model = MODELS[AutoConfig.from_pretrained(folder).model_type].from_pretrained(folder).eval()

{_OPEN_IMAGE}
codes = processor.encode(image)
inputs = torch.tensor([[0, *codes]])  # the number of the class, then the codes
with torch.inference_mode():
    logits = model(input_ids=inputs).logits  # (1, codes of an image, codes)
print(labels[0], logits.log_softmax(-1)[0, range(len(codes)), codes].mean())
"""


def _kind(task: Task) -> str:
    """The kind of a task by what it predicts, whether from a text or from an image."""
    return task.kind.name.removeprefix("image-")


def _predict(task: Task, max_length: int) -> list[str]:
    """The lines that encode an example and print what the model says."""
    options = f'truncation=True, max_length={max_length}, return_tensors="pt"'
    texts = [f'"the {name}"' for name in task.text]
    no_grad = "with torch.inference_mode():"
    if task.kind.name == "token-labels":
        texts, options = ['["the", "words"]'], f"is_split_into_words=True, {options}"
    encode = f"inputs = tokenizer({', '.join(texts)}, {options})"
    if task.kind.reads_images:
        encode = f'{_OPEN_IMAGE}\ninputs = processor(image, return_tensors="pt")'
    if _kind(task) in _READ_LOGITS:
        read = _READ_LOGITS[_kind(task)]
        return [encode, no_grad, "    logits = model(**inputs).logits", read]
    if task.kind.name == "question-answering":
        return [
            encode,
            no_grad,
            "    output = model(**inputs)",
            "begin, end = output.start_logits.argmax(), output.end_logits.argmax()",
            'print(tokenizer.decode(inputs["input_ids"][0, begin : end + 1]))',
        ]
    generate = "    tokens = model.generate(**inputs, max_new_tokens=64)"
    prompt = [
        '# The prompt must be written as in training; "iwlora predict" does that.',
        f'inputs = tokenizer("the prompt", {options})',
    ]
    if task.kind.learns_texts:
        prompt = [f'inputs = tokenizer("the beginning of a text", {options})']
    return [
        *prompt,
        no_grad,
        generate,
        "print(tokenizer.decode(tokens[0], skip_special_tokens=True))",
    ]
