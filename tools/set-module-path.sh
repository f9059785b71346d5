#!/usr/bin/env bash
# Renames the module: every go.mod, import, command and document that names it.
#
#   tools/set-module-path.sh github.com/someone/kvstore
#
# Run it on a clean work tree and look at the diff. It may be run again later.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

new=${1-}
old=$(awk '$1 == "module" {print $2; exit}' go.mod)
if [[ ! $new =~ ^[A-Za-z0-9][A-Za-z0-9._~-]*(/[A-Za-z0-9._~-]+)*$ ]]; then
	echo "usage: tools/set-module-path.sh NEW, now it is $old" >&2
	exit 2
fi

# Only the path itself: neither a longer name that begins like it nor one that ends so.
export old new
git ls-files -z | while IFS= read -r -d '' file; do
	# A symbolic link is followed by nobody, a binary file names no module.
	if [[ -f $file && ! -L $file ]] && grep -qIF -- "$old" "$file"; then
		perl -pi -e 's{(?<![\w./~-])\Q$ENV{old}\E(?![\w~-]|\.\w)}{$ENV{new}}g' -- "$file"
	fi
done

# The order of imports depends on the path.
git ls-files -z '*.go' | xargs -0 -r gofmt -w
