#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Every check of the sources that does not run the programs. `make lint` calls this with the compiler
# flags of the Makefile. usage: make lint [LINT="PART..."], where the parts are
#
#   format    clang-format changes nothing
#   rules     our own: which folder may include what, licence lines, no notes to self
#   shell     shellcheck
#   python    pyflakes
#   headers   every header compiles alone
#   cppcheck  false alarms are listed in scripts/cppcheck.suppress
#   tidy      clang-tidy with .clang-tidy
#   analyzer  gcc -fanalyzer
#
# What the slow parts found clean is remembered under build/lint by the content of the file and of
# all it includes, so only what changed is looked at again.
set -uo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.." || exit

all_parts='format rules shell python headers cppcheck tidy analyzer'
cache=build/lint
jobs=${LINT_JOBS:-$(nproc)}
eval "c_flags=(${LINT_CFLAGS:?run it by make lint})"
eval "bpf_flags=(${LINT_BPF_CFLAGS:?run it by make lint})"

# Leaks are off: gcc 12 forgets what was stored behind a pointer once it saw the next store, so every
# list and every growing array looks like one. LeakSanitizer looks for them.
analyzer_flags=(-O2 -fanalyzer -Werror -Wno-analyzer-malloc-leak)
# Out of memory, a test may crash; what JSON of its own it reads has the members that it has.
analyzer_test_flags=(-Wno-analyzer-possible-null-argument -Wno-analyzer-possible-null-dereference
	-Wno-analyzer-null-argument -Wno-analyzer-null-dereference)

# sources PATTERN...: files of the project by name, those not committed yet among them.
sources() {
	local names=()
	for pattern in "$@"; do names+=(-o -name "$pattern"); done
	find . \( -name build -o -name .git -o -name .vagrant \) -prune -o -type f \
		\( "${names[@]:1}" \) -printf '%P\n' | sort
}

shell_scripts() {
	find . \( -name build -o -name .git -o -name .vagrant \) -prune -o -type f -printf '%P\n' |
		xargs -d '\n' awk 'FNR == 1 && /^#!.*[\/ ](ba|da)?sh( |$)/ { print FILENAME } { nextfile }'
}

# fail MESSAGE: says it and is false.
fail() {
	printf 'lint: %s\n' "$*" >&2
	return 1
}

# --- checks of one file, remembered -----------------------------------------------------------

is_bpf() { [[ $1 == *.bpf.c || ($1 == bpf/*.h && $1 != bpf/nlb_abi.h) ]]; }

# check_one TOOL FILE: prints the tool's findings; fails if there are any.
check_one() {
	local tool=$1 file=$2 flags=("${c_flags[@]}") cpp=gcc config='' key said
	if is_bpf "$file"; then
		flags=("${bpf_flags[@]}")
		cpp=clang
	fi
	case $tool in
	tidy)
		set -- clang-tidy --quiet "$file" -- "${flags[@]}"
		config=.clang-tidy
		;;
	analyzer)
		[[ $file == tests/* ]] && flags+=("${analyzer_test_flags[@]}")
		set -- gcc "${flags[@]}" "${analyzer_flags[@]}" -c -o /dev/null "$file"
		;;
	esac

	# Comments count too: clang-tidy reads NOLINT in them.
	key=$({
		"$1" --version
		printf '%s\n' "$@"
		cat "$file" $config
		"$cpp" "${flags[@]}" -E -C -x c "$file"
	} 2>/dev/null | sha256sum | cut -c1-40)
	if [ -e "$cache/$tool/$key" ]; then
		touch "$cache/$tool/$key"
		return 0
	fi

	printf '  %-8s %s\n' "${tool^^}" "$file"
	if said=$("$@" 2>&1); then
		touch "$cache/$tool/$key"
		return 0
	fi
	# clang-tidy counts what it suppressed in headers of the system; nobody wants to know.
	grep -vE '^([0-9]+ warnings? (and [0-9]+ errors? )?generated|Suppressed )' <<<"$said"
	return 1
}

# Not remembered: to read it takes as long as to compile it.
compile_header() {
	local compiler=(gcc "${c_flags[@]}")
	is_bpf "$1" && compiler=(clang "${bpf_flags[@]}")
	printf '#include "%s"\n' "$1" |
		"${compiler[@]}" -Wall -Wextra -Werror -Wno-unused-function -fsyntax-only -x c - ||
		fail "$1: does not compile alone"
}

# check_each TOOL: files on standard input.
check_each() {
	mkdir -p "$cache/$1"
	find "$cache/$1" -type f -mtime +30 -delete
	xargs -d '\n' -r -n 1 -P "$jobs" "$0" --one "$1"
}

# --- parts ------------------------------------------------------------------------------------

lint_format() {
	sources '*.c' '*.h' '*.cc' | xargs -d '\n' clang-format --dry-run -Werror
}

lint_shell() {
	shell_scripts | xargs -d '\n' shellcheck
}

lint_python() {
	sources '*.py' | xargs -d '\n' /usr/bin/python3 -m pyflakes
}

lint_headers() {
	sources '*.h' | xargs -d '\n' -n 1 -P "$jobs" "$0" --header
}

lint_tidy() {
	sources '*.c' | check_each tidy
}

# gcc cannot compile for BPF.
lint_analyzer() {
	sources '*.c' | grep -v '\.bpf\.c$' | check_each analyzer
}

lint_cppcheck() {
	mkdir -p "$cache/cppcheck"
	sources '*.c' | grep -v '\.bpf\.c$' |
		cppcheck --quiet --enable=warning,style,performance,portability --error-exitcode=1 \
			--inline-suppr --suppressions-list=scripts/cppcheck.suppress \
			--std=c11 --platform=unix64 --library=posix --library=scripts/cppcheck.cfg \
			-I. -D_GNU_SOURCE -D__linux__ -DGATEHOUSE_VERSION='""' \
			-j "$jobs" --cppcheck-build-dir="$cache/cppcheck" --file-list=-
}

# refuse WHY FILES PATTERN [ALLOWED]: no line of the files may match, but for those that match ALLOWED.
refuse() {
	local found
	found=$(xargs -d '\n' grep -nE -- "$3" /dev/null <<<"$2" | grep -vE -- "${4:-^$}")
	[ -z "$found" ] && return 0
	fail "$1:
$found"
}

# licensed LICENCE FILES: among the first two lines, as scripts begin with their interpreter.
licensed() {
	local found
	# shellcheck disable=SC2016 # index($0) is awk's
	found=$(xargs -d '\n' awk -v want="SPDX-License-Identifier: $1" '
		FNR == 1 { seen = 0 }
		FNR <= 2 && index($0, want) { seen = 1 }
		FNR == 2 && !seen { print FILENAME }
		FNR == 2 { nextfile }' <<<"$2")
	[ -z "$found" ] && return 0
	fail "no line SPDX-License-Identifier: $1 in
$found"
}

lint_rules() {
	local status=0 c_files lib registry gateway nlb bpf bpf_files
	c_files=$(sources '*.c' '*.h' '*.cc')
	of() { grep "^$1/" <<<"$c_files"; }
	lib=$(of lib) registry=$(of registry) gateway=$(of gateway) nlb=$(of nlb) bpf=$(of bpf)

	# Generated skeletons have no folder; everything else is named from the root.
	refuse 'include with its path from the root' "$c_files" '^ *# *include "' \
		'"(lib|registry|gateway|nlb|bpf|tests)/[^"]+"|"[a-z_]+\.skel\.h"' || status=1
	refuse 'lib/ knows none of the programs' "$lib" '^ *# *include "' '"lib/' || status=1
	refuse 'registry/ may include lib/ and itself' "$registry" '^ *# *include "' \
		'"(lib|registry)/' || status=1
	refuse 'gateway/ may include lib/, itself and the client of the registry' "$gateway" \
		'^ *# *include "' '"(lib|gateway)/|"registry/(client|instance)\.h"' || status=1
	refuse 'nlb/ may include lib/, itself, the client of the registry and bpf/nlb_abi.h' "$nlb" \
		'^ *# *include "' '"(lib|nlb)/|"registry/(client|instance)\.h"|"bpf/nlb_abi\.h"|"(nlb|decap)\.skel\.h"' ||
		status=1
	refuse 'bpf/ may include itself' "$bpf" '^ *# *include "' '"bpf/' || status=1

	# Packet programs are loaded into the kernel, which asks for the GPL.
	bpf_files=$(grep -E '^bpf/|\.bpf\.c$' <<<"$c_files")
	licensed 'GPL-2.0-only OR BSD-2-Clause' "$bpf_files" || status=1
	licensed 'Apache-2.0' "$(sort <<<"$c_files
$(sources '*.py')
$(shell_scripts)" | comm -23 - <(echo "$bpf_files"))" || status=1

	refuse 'notes to self belong in the issue tracker' \
		"$(sources '*' | grep -vE '^(scripts/lint\.sh|LICENSE)$')" '\b(TO''DO|FIX''ME|XX''X)\b' || status=1
	refuse 'no file names a path of the machine it was written on' \
		"$(sources '*' | grep -v '^scripts/lint\.sh$')" '(^|[^A-Za-z0-9_.>-])/(work|home|root|tmp/wt)/' || status=1
	return $status
}

# --- main -------------------------------------------------------------------------------------

case ${1:-} in
--one)
	check_one "$2" "$3"
	exit
	;;
--header)
	compile_header "$2"
	exit
	;;
esac

failed=
# shellcheck disable=SC2086 # a list of words on purpose
[ $# -gt 0 ] || set -- $all_parts
for part; do
	case " $all_parts " in
	*" $part "*) ;;
	*)
		fail "no such part: $part (there are: $all_parts)"
		exit 2
		;;
	esac
	began=$SECONDS
	if "lint_$part"; then
		printf '  %-8s ok (%d s)\n' "$part" $((SECONDS - began))
	else
		printf '  %-8s FAILED (%d s)\n' "$part" $((SECONDS - began))
		failed="$failed $part"
	fi
done
if [ -n "$failed" ]; then
	fail "failed:$failed"
	exit 1
fi
echo "lint: clean"
