"""`ld-deploy --help`: the commands in the order of the work, without importing any of them."""

from __future__ import annotations

# Written here, so that --help imports nothing; a test compares it with the entry points.
PANELS = {
    "Train": {
        "split-dota": "cut large images and their rotated boxes into tiles",
        "train": "train a teacher, a baseline or a distilled student",
        "compare": "train several recipes on one data set, side by side",
        "bench-train": "where the time of a distilled training step goes",
        "eval": "AP of a checkpoint, by mmdet's own test loop",
        "publish": "the student's weights alone, with a hash in the name",
        "published": "every config, with its published and its measured AP",
        "landscape": "AP between two models: features mixed, heads swapped",
    },
    "Export": {
        "export": "checkpoint -> ONNX with decode and voting NMS inside",
        "quantize": "ONNX -> INT8 or FP8 ONNX, calibrated on your images",
        "convert": "ONNX in float32 -> float16 or bfloat16",
        "build": "ONNX -> TensorRT or TensorRT-RTX engine",
    },
    "Prove": {
        "verify": "AP and boxes of deployed files against PyTorch",
        "precision-report": "AP of files in several precisions, with intervals",
        "bench": "latency and images a second, with the spans named",
        "bench-video": "how fast deployed files annotate a video",
        "recommend": "quality and latency of your files, and which to take",
        "nms-report": "voting NMS against plain NMS on stored candidates",
        "report": "what commands left, as one HTML page",
    },
    "Run": {
        "detect": "run a file on an image, a folder, a glob or a video",
    },
    "Tools": {
        "demo": "the whole job on a synthetic data set, in minutes on a CPU",
        "doctor": "what is installed here, and what is missing",
        "completion": "the Tab key for commands and options in your shell",
    },
}
SUMMARIES = {name: summary for commands in PANELS.values() for name, summary in commands.items()}


def print_overview() -> None:
    """Prints the commands by panel."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table

    console = Console()
    console.print("Usage: [bold]ld-deploy COMMAND[/] [dim]...[/]\n")
    width = max(map(len, SUMMARIES))
    for title, commands in PANELS.items():
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(min_width=width, no_wrap=True)
        table.add_column()
        for name, summary in commands.items():
            table.add_row(f"[bold cyan]{name}[/]", summary)
        console.print(Panel(table, title=title, title_align="left", border_style="dim"))
    console.print("\n`ld-deploy COMMAND --help` has options and examples. First: `ld-deploy demo`.")
