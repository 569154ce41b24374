"""What a program of the public one-file format imports as `prepare`, over this lab's text, clock and score.

The same names as in public, and what the adapter's changes to the program call. The steps whose seconds the program
does not count, in which it compiles, and the first whose it would, run before the lab's clock on random tokens and are
undone: weights and states of optimizers are as they were made. From then on its counter shows the lab's clock.
`evaluate_bpb` hands the weights in and returns NaN: scores are made elsewhere.

While scores are made there is no text: the program runs on zeros to the first forward pass of its model, see model.py.
"""

import functools

import inside_call
import torch

VOCAB_SIZE = 8192
MAX_SEQ_LEN = 2048
COUNTS_SECONDS = True  # whether the program calls `counted_seconds`; without it the clock starts at its first batch
EVAL_TOKENS = 40 * 524288
HAND_OVER_SECONDS = 0.5  # for handing over the weights, at most 5 % of the budget

TRAINS = inside_call.step == "run_train"
DEVICE = inside_call.args["device"]
if TRAINS:
    import harness

    SEED = harness.seed
    STOP_AT = 1 - min(0.05, HAND_OVER_SECONDS / harness.budget_seconds)  # of the budget
    TAKE_AT = (1 + STOP_AT) / 2  # of the budget; a last step may take a little longer than the one before
    TIME_BUDGET = harness.budget_seconds * STOP_AT
else:
    SEED = 0
    TIME_BUDGET = 300.0


class Rebuilt(BaseException):
    """The program has come to the first forward pass of its model: what scores need is there."""

    def __init__(self, network, precision):
        super().__init__()
        self.network, self.precision = network, precision


class Run:
    """One run of the program: its model, its optimizers, its batches and where it is with the clock."""

    def __init__(self):
        self.model = None
        self.first = None  # the model's weights before any step
        self.optimizers = []
        self.batches = []
        self.started = False
        self.last = 0.0  # seconds used when they were last asked for
        self.submitted = False

    def before_step(self, optimizer, *_):
        if not any(optimizer is known for known in self.optimizers):
            self.optimizers.append(optimizer)
        if self.first is None and not self.started and self.model is not None:
            self.first = {name: value.clone() for name, value in self.model.state_dict().items()}

    def after_step(self, *_):
        if self.started and harness.progress() >= TAKE_AT:
            print("the program would go on; its weights are handed in as they are")
            self.submit(self.model)
            raise SystemExit(0)

    def start(self):
        """Undo what was done on random tokens, and start the lab's clock."""
        if COUNTS_SECONDS and self.first is None:
            raise SystemExit("no step of a torch.optim.Optimizer was seen: derive the optimizer from that class")
        if self.first is not None:
            self.model.load_state_dict(self.first)
            self.first = None
            harness.reserve(weights_of(self.model))
        for optimizer in self.optimizers:
            optimizer.state.clear()
        tokens = harness.start_clock()  # [n] uint8 or uint16
        self.started = True
        for batches in self.batches:
            batches.read(tokens)

    def submit(self, model):
        harness.submit(weights_of(model))
        self.submitted = True


run = Run()


def weights_of(model):  # by the names that model.py knows them under
    model = getattr(model, "_orig_mod", model)  # as it is without torch.compile
    return {f"network.{name}": value for name, value in model.state_dict().items()}


def scored(model_class):
    """Marks the class of the model, whose instances are then known."""
    build = model_class.__init__

    @functools.wraps(build)
    def known(self, *args, **options):
        build(self, *args, **options)
        run.model = self
        if not TRAINS:
            handle = self.register_forward_pre_hook(lambda network, inputs: found(network, inputs, handle))

    model_class.__init__ = known
    return model_class


def found(network, inputs, handle):
    handle.remove()
    kind = inputs[0].device.type if inputs else DEVICE
    raise Rebuilt(network, (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)))


def counted_seconds():
    """Seconds of the budget used once a step as long as the last one has ended, so that it still fits."""
    if not TRAINS:
        return 0.0
    if not run.started:
        run.start()
    used = harness.progress() * harness.budget_seconds
    step, run.last = used - run.last, used
    return used + step


class Batches:
    """Endless iterator of (inputs, targets, epoch), the first two int64 [B, T], in the same memory every time.

    Rows are cut and ordered as by the starts of this lab: at other places and in a new order every epoch.
    """

    def __init__(self, rows, length):
        self.rows, self.length = rows, length
        self.inputs, self.targets = torch.zeros(2, rows, length, dtype=torch.int64, device=DEVICE)
        self.windows = None
        self.epoch = 0
        self.generator = torch.Generator().manual_seed(SEED)
        self.order = torch.empty(0, dtype=torch.int64)

    def __iter__(self):
        return self

    def __next__(self):
        if TRAINS and not run.started and not COUNTS_SECONDS:
            run.start()
        if TRAINS:
            self.fill()
        return self.inputs, self.targets, max(1, self.epoch)

    def read(self, tokens):
        """From now on of the text; what was given last becomes text, too."""
        tokens = tokens.view(torch.int16) if tokens.dtype == torch.uint16 else tokens  # ids below 32,768
        self.windows = tokens.unfold(0, self.length + 1, 1)  # [n - length, length + 1], a view
        self.fill()

    def fill(self):
        if self.windows is None:
            batch = torch.randint(VOCAB_SIZE, (self.rows, self.length + 1), device=DEVICE)
        else:
            batch = self.windows[self.next_starts()]
            batch = batch.pin_memory() if DEVICE == "cuda" else batch
            batch = batch.to(DEVICE, non_blocking=True)
        self.inputs.copy_(batch[:, :-1])
        self.targets.copy_(batch[:, 1:])

    def next_starts(self):  # -> int64 [rows]
        while len(self.order) < self.rows:
            first = int(torch.randint(min(self.length, len(self.windows)), (), generator=self.generator))
            starts = torch.arange(first, len(self.windows), self.length)
            epoch = starts[torch.randperm(len(starts), generator=self.generator)]
            self.order = torch.cat((self.order, epoch))
            self.epoch += 1
        starts, self.order = self.order[: self.rows], self.order[self.rows :]
        return starts


def make_dataloader(tokenizer, B, T, split, buffer_size=1000):
    if split != "train":
        raise SystemExit(f"there is no {split} text where a candidate trains; ask for 'train'")
    batches = Batches(B, T)
    run.batches.append(batches)
    if run.started:
        raise SystemExit("make every loader before the first step: the text is handed out once")
    return batches


class Tokenizer:
    """Knows the size of the vocabulary and the bytes of its tokens; texts are encoded outside."""

    @classmethod
    def from_directory(cls, *_):
        return cls()

    def get_vocab_size(self):
        return VOCAB_SIZE

    def get_bos_token_id(self):
        return 0

    def encode(self, *_, **__):
        raise NotImplementedError("texts are encoded outside the sandbox; tokens come from make_dataloader")

    def decode(self, ids):
        spelled = harness.token_bytes if TRAINS else torch.zeros(VOCAB_SIZE, 16, dtype=torch.uint8)
        return b"".join(bytes(spelled[int(one)].tolist()).rstrip(b"\0") for one in ids).decode("utf-8", "replace")


def get_token_bytes(device="cpu"):  # -> int32 [V], bytes of each token, at most 16; 0 where they are not told
    if not TRAINS:
        return torch.zeros(VOCAB_SIZE, dtype=torch.int32, device=device)
    places = torch.arange(1, 17) * (harness.token_bytes > 0)  # [V, 16]
    return places.amax(1).to(torch.int32).to(device)


def evaluate_bpb(model, tokenizer=None, batch_size=None, *_, **__):
    """Hands in the weights; the last ones before the deadline are scored, by the lab."""
    if TRAINS and run.started:
        run.submit(model)
    return float("nan")
