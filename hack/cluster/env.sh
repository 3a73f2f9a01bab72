# Writes target/cluster/env, all that tests know about the cluster.
# Sourced by up.sh and kind.sh.
# shellcheck shell=bash

# env_write NAME...: exports the variables with these names; with a plain value
# each. Written aside and moved: a reader never sees half of it.
env_write() {
  local name
  mkdir -p "$TARGET"
  {
    echo "# Made by hack/cluster/up.sh; source it from a shell."
    for name; do printf 'export %s=%q\n' "$name" "${!name}"; done
  } >"$TARGET/.env.$$"
  mv "$TARGET/.env.$$" "$TARGET/env"
}
