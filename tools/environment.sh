# Sourced by the set-up commands: makes a virtual environment with this package, once, and sets PY to its interpreter.
# PYTHON names the interpreter to make it with, VENV its folder; EXTRA is the extra to install (see setup.py).

PYTHON=${PYTHON:-$(command -v python3.11 || echo python3)}
VENV=${VENV:-.venv}
PY=$VENV/bin/python
export GLOG_v=${GLOG_v:-3}

fail() { echo "error: $*" >&2; exit 1; }

set_up_environment() {
    local extra=$1 stamp wanted log
    stamp=$VENV/installed-$extra
    wanted=$(cat setup.py tools/constraints.txt | sha256sum)
    if [ -x "$PY" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi

    command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON: no such interpreter; name a Python 3.11"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || fail \
        "PYTHON=$PYTHON is $("$PYTHON" --version 2>&1); the tested set has MindSpore 2.8.0 for Python 3.11: name a Python 3.11"
    echo "== setting up $VENV with the tested versions of tools/constraints.txt (a few minutes, once)"
    [ -x "$PY" ] || "$PYTHON" -m venv "$VENV" || fail "$PYTHON cannot make a virtual environment in $VENV (is its venv module installed?)"
    log=$VENV/install.log
    "$PY" -m pip install --quiet -c tools/constraints.txt -e ".[$extra]" >"$log" 2>&1 || {
        tail -n 5 "$log" >&2
        fail "installing into $VENV failed; the whole output is in $log"
    }
    echo "$wanted" >"$stamp"
}
