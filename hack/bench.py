"""Measures kubectl-build beside its peers; run by bench.sh inside the cluster's network.

Every round runs all tools of a case one after the other, in an order that changes with the round, so that whatever
else the machine does hits all of them; ratios are taken within a round. A time is the wall clock of the whole process; CPU is user + system of all its
processes (buildctl's `kubectl exec` too); memory is the peak resident set of the largest of them. The daemon's own
work is in the wall clock only, and is the same daemon for ours and buildctl. Medians of the rounds.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ENV = os.environ
PEERS = Path(ENV["PEERS"])
REGISTRY = ENV["REGISTRY"]
OURS, BUILDCTL, BUILDX, COSIGN2, COSIGN3 = "kubectl build", "buildctl", "buildx", "cosign 2", "cosign 3"
PEER = "peer"  # the builder that buildctl talks to
NAMESPACE = f"bench-{os.getpid()}"
LIMIT = 600  # seconds for one run
PR_SET_CHILD_SUBREAPER = 36


class Run:
    """One finished process: wall and CPU in seconds, memory in bytes, and what it said."""

    def __init__(self, wall, cpu, memory, output):
        self.wall, self.cpu, self.memory, self.output = wall, cpu, memory, output


def say(text):
    print(text, file=sys.stderr, flush=True)


def measure(command, memory=True):
    """Runs a command to its end. GNU time asks for the memory: it is small, while a child of Python would inherit
    Python's own peak. Without memory the command is started directly, for the sake of milliseconds."""
    peak = Path(ENV["BENCH_WORK"], "peak")
    full = ["/usr/bin/time", "-q", "-f", "%M", "-o", str(peak), *command] if memory else command
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        child = subprocess.Popen(full, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=ENV)
        _, status, usage = wait(child.pid, start + LIMIT)
        wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime
        # What a tool leaves behind for a moment (buildctl its kubectl) comes to us, and counts.
        while True:
            try:
                _, _, late = wait(-1, time.perf_counter() + 10)
            except ChildProcessError:
                break
            cpu += late.ru_utime + late.ru_stime
        out.seek(0)
        output = out.read().decode(errors="replace")
    if child.returncode != 0:
        raise SystemExit(f"bench: {' '.join(map(str, command))}: exit code {child.returncode}\n{output[-3000:]}")
    return Run(wall, cpu, int(peak.read_text().split()[-1]) * 1024 if memory else 0, output)


def wait(pid, end):
    """wait4 with an end, for one child or for whichever ends next."""
    if pid > 0:
        # A blocking wait is exact; the alarm ends it.
        def expired(_signal, _frame):
            os.kill(pid, signal.SIGKILL)
            raise SystemExit(f"bench: a command did not end within {LIMIT} s")

        signal.signal(signal.SIGALRM, expired)
        signal.alarm(max(1, int(end - time.perf_counter())))
        try:
            return os.wait4(pid, 0)
        finally:
            signal.alarm(0)
    while True:
        result = os.wait4(pid, os.WNOHANG)
        if result[0]:
            return result
        if time.perf_counter() > end:
            raise SystemExit("bench: a tool left a process behind that does not end")
        time.sleep(0.005)


def kubectl(*arguments, stdin=None):
    command = [str(PEERS / "kubectl"), "-n", NAMESPACE, *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise SystemExit(f"bench: {' '.join(command)}: {done.stderr}")
    return done.stdout


class Bench:
    """The tools, each with a builder of its own kind, and a folder that is removed in the end."""

    def __init__(self, work):
        self.work = work
        self.bin = work / "bin"
        self.bin.mkdir()
        for name in ("kubectl", "buildctl"):
            (self.bin / name).symlink_to(PEERS / name)
        (self.bin / "kubectl-build").symlink_to(ENV["KUBECTL_BUILD_BIN"])
        ENV["PATH"] = f"{self.bin}:{ENV['PATH']}"
        ENV["HOME"] = str(work)
        ENV["BUILDX_CONFIG"] = str(work / "buildx")
        ENV["DOCKER_CONFIG"] = str(work / "docker")
        ENV["BENCH_WORK"] = str(work)
        ENV["KUBECTL_BUILD_BUILDER_IMAGE"] = ENV["BUILDKIT_IMAGE"]
        ENV["COSIGN_PASSWORD"] = "bench"
        self.results = {}
        self.bytes = {}

    # Commands.

    def ours(self, context, *flags):
        return ["kubectl-build", "-n", NAMESPACE, "--progress", "plain", *flags, str(context)]

    def buildctl(self, context):
        address = f"kube-pod://{self.pod_of(BUILDCTL).removeprefix('pod/')}?namespace={NAMESPACE}"
        local = [f"--local={name}={context}" for name in ("context", "dockerfile")]
        return ["buildctl", "--addr", address, "build", "--progress=plain", "--frontend=dockerfile.v0", *local]

    def buildx(self, context):
        return [str(PEERS / "buildx"), "build", "--builder", NAMESPACE, "--progress=plain", str(context)]

    def create_buildx(self):
        options = f"image={ENV['BUILDKIT_IMAGE']},namespace={NAMESPACE}"
        create = ["create", "--name", NAMESPACE, "--driver", "kubernetes", "--driver-opt", options]
        measure([str(PEERS / "buildx"), *create])

    def builders(self, context):
        return [(OURS, self.ours(context)), (BUILDCTL, self.buildctl(context)), (BUILDX, self.buildx(context))]

    # Bookkeeping.

    def add(self, case, tool, run):
        self.results.setdefault(case, {}).setdefault(tool, []).append(run)
        say(f"  {case}: {tool}: {run.wall:.3f} s, CPU {run.cpu:.3f} s, {run.memory / 1e6:.0f} MB")

    def pod_of(self, tool):
        prefix = {OURS: "pod/buildkit-", BUILDCTL: f"pod/{PEER}-", BUILDX: f"pod/{NAMESPACE}"}[tool]
        return next(name for name in kubectl("get", "pods", "-o", "name").split() if name.startswith(prefix))

    def prune(self, tool):
        """Empties the daemon's cache, earlier copies of contexts included."""
        kubectl("exec", self.pod_of(tool), "--", "buildctl", "prune", "--all")

    # Cases.

    def warm(self):
        """All builders exist and have seen the small context."""
        measure(["kubectl-build", "create", PEER, "-n", NAMESPACE])
        for _tool, command in [(OURS, self.ours(self.small)), (BUILDX, self.buildx(self.small))]:
            measure(command)

    def noop(self, rounds):
        """Nothing changed in a context of four files."""
        for _tool, command in self.builders(self.small):
            measure(command)
        for number in range(rounds):
            for tool, command in rotated(self.builders(self.small), number):
                self.add("no-op, 4 files", tool, measure(command))

    def tree(self, name, rounds, make):
        """First and second build of a large context; `first` begins with an empty daemon and a new directory."""
        context = self.work / name
        make(context)
        size = sum(entry.stat().st_size for entry in context.rglob("*") if entry.is_file())
        say(f"{name}: {size / 1e6:.0f} MB")
        for number in range(rounds):
            # Daemons know an earlier copy of a context by its directory's name.
            moved = self.work / f"{name}-{number}"
            context = context.rename(moved)
            for tool, command in rotated(self.builders(context), number):
                self.prune(tool)
                first = measure(command)
                if transferred(first) < 0.9 * size:
                    raise SystemExit(f"bench: {tool} did not send the whole context:\n{first.output}")
                self.add(f"{name}, first", tool, first)
            for again in range(2):
                for tool, command in rotated(self.builders(context), number + again):
                    run = measure(command)
                    if transferred(run) > 0.1 * size + 8e6:
                        raise SystemExit(f"bench: {tool} sent the context again:\n{run.output}")
                    self.add(f"{name}, no-op", tool, run)
        shutil.rmtree(context)

    def cold(self, rounds):
        """First build with no builder there; beside it the time that the same pod takes to be Ready by itself."""
        for number in range(rounds):
            for step in rotated([self.cold_ours, self.cold_buildx], number):
                step()

    def cold_ours(self):
        deployment = json.loads(kubectl("get", "deployment", "buildkit", "-o", "json"))
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "buildkit", "labels": deployment["metadata"].get("labels", {})},
            "spec": deployment["spec"],
        }
        # Its ConfigMap and the rest stay.
        self.delete_deployment()
        start = time.perf_counter()
        kubectl("create", "-f", "-", stdin=json.dumps(deployment))
        kubectl("wait", "--for=condition=Available", "deployment/buildkit", "--timeout=100s")
        self.add("no builder", "its pod alone", Run(time.perf_counter() - start, 0, 0, ""))
        self.delete_deployment()
        measure(["kubectl-build", "rm", "-n", NAMESPACE])
        self.add("no builder", OURS, measure(self.ours(self.small)))

    def delete_deployment(self):
        kubectl("delete", "deployment", "buildkit", "--cascade=foreground")
        self.gone("buildkit-")

    def cold_buildx(self):
        measure([str(PEERS / "buildx"), "rm", NAMESPACE])
        self.gone(NAMESPACE)
        self.create_buildx()
        self.add("no builder", BUILDX, measure(self.buildx(self.small)))

    def gone(self, prefix):
        end = time.perf_counter() + 60
        while any(name.startswith(f"pod/{prefix}") for name in kubectl("get", "pods", "-o", "name").split()):
            if time.perf_counter() > end:
                raise SystemExit(f"bench: pods of {prefix} do not go away")
            time.sleep(0.2)

    def sign(self, rounds):
        """What signing adds to a push of ours, beside `cosign sign` of the image that was pushed without. Each round
        has images of its own, since a second signature by the same key costs less."""
        key, bundle = self.cosign_key()

        def push(label, *flags):
            image = f"{REGISTRY}/{NAMESPACE}/{label}"
            common = ["-t", f"{image}:1", "--push", "--registry-http", REGISTRY, "--label", f"image={label}"]
            run = measure(self.ours(self.small, *common, *flags))
            return run, f"{image}@{re.findall(r'@(sha256:[0-9a-f]{64})', run.output)[0]}"

        for number in range(rounds):
            for step in rotated(["push", "push and sign"], number):
                flags = ["--sign", "--cosign-key", key] if "sign" in step else []
                run, _image = push(f"{step.replace(' ', '-')}{number}", *flags)
                self.add(step, OURS, run)
            for tool, peer, flags in [(COSIGN3, "cosign", bundle), (COSIGN2, "cosign2", ["--tlog-upload=false"])]:
                _run, image = push(f"{peer}{number}")
                command = [str(PEERS / peer), "sign", "--key", key, *flags, "--allow-http-registry", "-y", image]
                self.add("cosign sign", tool, measure(command))

    def platforms(self, rounds):
        """Two platforms at once, each by a builder pod of its own node, pushed and joined: beside buildx with two nodes.
        The second node is presented as arm64; nothing of the image runs. A last run of each, not timed, is traced for
        the bytes that go through the client's sockets."""
        first, second = ENV["CLUSTER_NODES"].split()
        toml = self.work / "buildkitd.toml"
        toml.write_text(f'[registry."{REGISTRY}"]\nhttp = true\n')
        both = f"{NAMESPACE}-both"
        context = self.work / "platforms"
        context.mkdir()
        (context / "data").write_bytes(random.Random(3).randbytes(32 << 20))
        (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
        for node, architecture, more in [(first, "amd64", []), (second, "arm64", ["--append"])]:
            options = f"image={ENV['BUILDKIT_IMAGE']},namespace={NAMESPACE},nodeselector=kubernetes.io/hostname={node}"
            create = ["create", "--name", both, "--node", f"{both}-{architecture}", "--driver", "kubernetes", *more]
            create += ["--platform", f"linux/{architecture}", "--buildkitd-config", str(toml), "--driver-opt", options]
            measure([str(PEERS / "buildx"), *create])

        def commands(label):
            image = f"{REGISTRY}/{NAMESPACE}/platforms"
            common = ["--platform", "linux/amd64,linux/arm64", "--label", f"image={label}"]
            flags = [*common, "-t", f"{image}:ours", "--push", "--registry-http", REGISTRY, "--builder", "both"]
            buildx = [str(PEERS / "buildx"), "build", "--builder", both, "--progress=plain", "--provenance=false"]
            buildx += [*common, "-t", f"{image}:theirs", "--push", str(context)]
            return [(OURS, self.ours(context, *flags)), (BUILDX, buildx)]

        case = "2 platforms, 2 nodes"
        with arm_node(second):
            for _tool, command in commands("warm"):
                measure(command)
            for number in range(rounds):
                for tool, command in rotated(commands(number), number):
                    self.add(case, tool, measure(command))
            self.bytes = {tool: traced(command, self.work) for tool, command in commands("traced")}
        measure([str(PEERS / "buildx"), "rm", both])

    def index(self, rounds):
        """An index with five platforms and all of them, signed by a key without a log, and by an identity with
        certificate, log and timestamp. Ours writes what it writes by default (for a key both formats, each where cosign
        writes one), reads it back and verifies it."""
        key, none = self.cosign_key()
        token = self.work / "token"
        create = ["-n", "default", "create", "token", "default", "--audience", "sigstore", "--duration", "1h"]
        token.write_text(kubectl(*create))
        services = ["--signing-config", ENV["SIGNING_CONFIG"], "--trusted-root", ENV["TRUSTED_ROOT"]]
        keyless = [*services, "--identity-token", str(token)]
        recursive = ["sign", "--recursive", "--allow-http-registry", "-y"]
        ours = ["kubectl-build", "sign", "--registry-http", REGISTRY, "--progress", "plain"]
        cases = {
            "index, key": [
                (OURS, [*ours, "--cosign-key", key]),
                (COSIGN3, [str(PEERS / "cosign"), *recursive, "--key", key, *none]),
                (COSIGN2, [str(PEERS / "cosign2"), *recursive, "--key", key, "--tlog-upload=false"]),
            ],
            "index, keyless": [
                (OURS, [*ours, *keyless]),
                (COSIGN3, [str(PEERS / "cosign"), *recursive, *keyless]),
            ],
        }
        for number in range(rounds):
            for case, tools in cases.items():
                for tool, command in rotated(tools, number):
                    label = f"{case} {tool} {number}"
                    self.add(case, tool, measure([*command, push_index(f"{NAMESPACE}/index", label)]))

    def cosign_key(self):
        """A key pair of cosign's, and the flags that keep cosign 3 from any service."""
        prefix = str(self.work / "cosign")
        if not Path(f"{prefix}.key").exists():
            measure([str(PEERS / "cosign"), "generate-key-pair", "--output-key-prefix", prefix])
        config = str(self.work / "signing-config.json")
        none = [f"--no-default-{service}" for service in ("fulcio", "rekor", "tsa", "oidc")]
        measure([str(PEERS / "cosign"), "signing-config", "create", "--out", config, *none])
        trusted = self.work / "trusted-root.json"
        trusted.write_text('{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}')
        return f"{prefix}.key", ["--signing-config", config, "--trusted-root", str(trusted)]

    def help(self, rounds):
        commands = [
            (OURS, ["kubectl-build", "--help"]),
            (BUILDCTL, ["buildctl", "--help"]),
            (BUILDX, [str(PEERS / "buildx"), "--help"]),
            (COSIGN3, [str(PEERS / "cosign"), "--help"]),
        ]
        for number in range(rounds):
            for tool, command in rotated(commands, number):
                fast = measure(command, memory=False)
                fast.memory = measure(command).memory
                self.results.setdefault("--help", {}).setdefault(tool, []).append(fast)


@contextlib.contextmanager
def arm_node(node):
    """Presents a node as arm64; its kubelet's reports, which mend the label, are refused meanwhile."""
    name = "kubectl-build-bench-arm64"
    api = "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["nodes", "nodes/status"]}
    expression = "object.metadata.labels['kubernetes.io/arch'] == 'arm64'"
    policy = {
        "apiVersion": api,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [{**rule, "resourceNames": [node]}]},
            "validations": [{"expression": expression}],
        },
    }
    binding = {
        "apiVersion": api,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }

    def label(value, *more):
        command = [PEERS / "kubectl", "label", "node", node, f"kubernetes.io/arch={value}", "--overwrite", *more]
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0

    try:
        for one in (policy, binding):
            kubectl("apply", "-f", "-", stdin=json.dumps(one))
        end = time.perf_counter() + 60
        while not (label("arm64") and not label("amd64", "--dry-run=server")):
            if time.perf_counter() > end:
                raise SystemExit("bench: the kubelet's reports are not refused")
            time.sleep(0.5)
        yield
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            kubectl("delete", kind, name, "--ignore-not-found")
        label("amd64")


def traced(command, work):
    """Runs a command under strace and returns how many bytes it read from and wrote to TCP sockets."""
    trace = work / "trace"
    calls = "trace=read,readv,write,writev,sendto,recvfrom,sendmsg,recvmsg"
    measure(["strace", "-f", "-yy", "-s", "0", "-e", calls, "-e", "signal=none", "-o", str(trace), *command])
    done = re.compile(r"(?:\w+\(\d+<TCP|<\.\.\. \w+ resumed>).* = (\d+)$")
    # A call that another thread's interrupts stands on two lines; only its first names the socket.
    began = re.compile(r"^(\d+) .*\(\d+<(TCP)?.*<unfinished \.\.\.>$")
    open_tcp, total = {}, 0
    for line in trace.read_text(errors="replace").splitlines():
        process = line.split(" ", 1)[0]
        if unfinished := began.match(line):
            open_tcp[process] = bool(unfinished[2])
        elif found := done.search(line):
            if "resumed>" not in line or open_tcp.pop(process, False):
                total += int(found[1])
    return total


def push_index(repository, label):
    """Pushes an index with five platforms whose digests are its own, and returns its name by digest."""
    oci = "application/vnd.oci.image"

    def request(method, url, body=b"", kind="application/octet-stream"):
        url = url if url.startswith("http") else f"http://{REGISTRY}{url}"
        headers = {"Content-Type": kind}
        request = urllib.request.Request(url, data=body, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.headers.get("Location")

    def described(kind, text, **more):
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        return {"mediaType": f"{oci}.{kind}", "digest": digest, "size": len(text), **more}

    def put(kind, value, **more):
        text = json.dumps({"schemaVersion": 2, "mediaType": f"{oci}.{kind}", **value}).encode()
        entry = described(kind, text, **more)
        request("PUT", f"/v2/{repository}/manifests/{entry['digest']}", text, f"{oci}.{kind}")
        return entry

    entries = []
    for architecture in ("amd64", "arm64", "ppc64le", "riscv64", "s390x"):
        platform = {"architecture": architecture, "os": "linux"}
        text = json.dumps({**platform, "author": label, "rootfs": {"type": "layers", "diff_ids": []}}).encode()
        config = described("config.v1+json", text)
        place = request("POST", f"/v2/{repository}/blobs/uploads/")
        request("PUT", f"{place}{'&' if '?' in place else '?'}digest={config['digest']}", text)
        entries.append(put("manifest.v1+json", {"config": config, "layers": []}, platform=platform))
    return f"{REGISTRY}/{repository}@{put('index.v1+json', {'manifests': entries})['digest']}"


def rotated(items, number):
    number %= len(items)
    return items[number:] + items[:number]


def transferred(run):
    """The largest size that a progress line of the context's transfer tells, in bytes."""
    units = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
    sizes = re.findall(r"transferring context: ([0-9.]+)([kMG]?)B", run.output)
    return max((float(number) * units[unit] for number, unit in sizes), default=0)


def many_files(context):
    """50,000 files of 5 to 9 KB in 500 directories, as little compressible as an archive of pictures."""
    bytes_of = random.Random(1)
    for folder in range(500):
        path = context / "data" / f"d{folder:03}"
        path.mkdir(parents=True)
        for number in range(100):
            (path / f"f{number:02}").write_bytes(bytes_of.randbytes(bytes_of.randrange(4900, 8860)))
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")


def one_file(context):
    context.mkdir()
    bytes_of = random.Random(2)
    with open(context / "huge", "wb") as file:
        for _ in range(1024):
            file.write(bytes_of.randbytes(1 << 20))
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")


def middle(runs, field):
    return statistics.median(getattr(run, field) for run in runs)


def ratio(own, peer, field):
    """The median of the rounds' ratios: both tools of a round met the same machine."""
    return statistics.median(getattr(one, field) / getattr(other, field) for one, other in zip(own, peer))


# What is to be reached beside the peer with the shorter wall clock: wall, CPU, memory.
TARGETS = {
    "no-op, 4 files": (0.6, 1 / 3, 1 / 3),
    "50,000 files, first": (0.5, 1 / 3, None),
    "50,000 files, no-op": (0.5, 1 / 3, None),
    "index, key": (0.25, 0.25, 0.2),
    "index, keyless": (0.25, 0.25, 0.2),
}


def table(results, sent):
    """One line for each case and tool, with the ratios of ours to it; what a target misses is marked."""
    print(f"\n{'case':<22}{'tool':<16}{'n':>3}{'wall':>10}{'(min-max)':>16}{'CPU':>9}{'memory':>9}   ours/this: wall  CPU  memory")
    for case, tools in results.items():
        label = case
        own = tools.get(OURS)
        peers = {tool: runs for tool, runs in tools.items() if tool != OURS and runs[0].cpu}
        faster = min(peers, key=lambda tool: middle(peers[tool], "wall"), default=None)
        for tool, runs in tools.items():
            wall, cpu, memory = (middle(runs, field) for field in ("wall", "cpu", "memory"))
            walls = [run.wall for run in runs]
            line = f"{label:<22}{tool:<16}{len(runs):>3}{wall:>9.3f}s{min(walls):>9.2f}-{max(walls):<6.2f}"
            line += f"{cpu:>8.3f}s{memory / 1e6:>6.0f} MB" if cpu else ""
            if own and tool in peers:
                ratios = [ratio(own, runs, field) for field in ("wall", "cpu", "memory")]
                line += "        " + "".join(f"{value:>8.2f}" for value in ratios)
                if tool == faster and case in TARGETS:
                    pairs = zip(ratios, TARGETS[case])
                    missed = [f"{target:.2f}" for value, target in pairs if target and value > target]
                    line += f"   over {', '.join(missed)}" if missed else "   reached"
            print(line)
            label = ""
    if "no builder" in results:
        cold = results["no builder"]
        spent = middle(cold[OURS], "wall") - middle(cold["its pod alone"], "wall")
        print(f"\nfirst build with no builder: {spent:+.2f} s over the pod's own time to Ready; target 1 s")
    if sent:
        parts = ", ".join(f"{tool} {size / 1e6:.1f} MB" for tool, size in sent.items())
        print(f"\n2 platforms, 2 nodes, an image of 34 MB for each, its context known there: through the client's sockets: {parts}")
    if "push and sign" in results:
        pairs = zip(results["push and sign"][OURS], results["push"][OURS])
        added = [signed.wall - plain.wall for signed, plain in pairs]
        parts = [
            f"{statistics.median(ours / peer.wall for ours, peer in zip(added, runs)):.2f} of `{tool} sign`"
            for tool, runs in results["cosign sign"].items()
        ]
        print(f"\nsigning adds {statistics.median(added):.3f} s to a push (both formats, verified): {', '.join(parts)}; target 0.25")


def main():
    # An ended run cleans up, too.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit("bench: terminated"))
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    cases = ENV.get("KB_BENCH_CASES", "noop files huge cold sign index platforms help").split()
    fixed = ENV.get("KB_BENCH_ROUNDS")

    def rounds(default):
        return int(fixed) if fixed else default

    work = Path(tempfile.mkdtemp(prefix="kubectl-build-bench-"))
    try:
        bench = Bench(work)
        bench.small = work / "small"
        shutil.copytree("integration/fixtures/hello", bench.small)
        for name in ("one", "two"):
            (bench.small / name).write_text(f"{name}\n")
        say(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs; namespace {NAMESPACE}")
        subprocess.run([PEERS / "kubectl", "create", "namespace", NAMESPACE], check=True, timeout=60)
        if set(cases) - {"index", "help"}:
            bench.create_buildx()
            bench.warm()
        if "noop" in cases:
            bench.noop(rounds(7))
        if "sign" in cases:
            bench.sign(rounds(7))
        if "platforms" in cases:
            bench.platforms(rounds(5))
        if "index" in cases:
            bench.index(rounds(7))
        if "help" in cases:
            bench.help(rounds(20))
        if "files" in cases:
            bench.tree("50,000 files", rounds(3), many_files)
        if "huge" in cases:
            bench.tree("1 GiB file", rounds(3), one_file)
        if "cold" in cases:
            bench.cold(rounds(3))
        table(bench.results, bench.bytes)
        print("\nbinaries: " + ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes()))
        print(f"load average at the end {os.getloadavg()[0]:.1f}")
    finally:
        delete = ["delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false"]
        subprocess.run([PEERS / "kubectl", *delete], check=False, timeout=60)
        shutil.rmtree(work, ignore_errors=True)


def sizes():
    binaries = [(OURS, Path(ENV["KUBECTL_BUILD_BIN"]))]
    names = {BUILDCTL: "buildctl", BUILDX: "buildx", COSIGN3: "cosign", COSIGN2: "cosign2", "kubectl": "kubectl"}
    return [(name, path.stat().st_size) for name, path in binaries + [(n, PEERS / f) for n, f in names.items()]]


if __name__ == "__main__":
    main()
