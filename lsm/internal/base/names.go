package base

import (
	"fmt"
	"strconv"
	"strings"
)

// Base names of the files in a directory of the engine.
const (
	ManifestName    = "manifest"
	ManifestTmpName = "manifest.tmp"
	LockName        = "lock"
	ReserveName     = "reserve"
	CheckpointName  = "checkpoint"
	// CheckpointTmpName marks a checkpoint that is not finished.
	CheckpointTmpName = "checkpoint.tmp"
	tableSuffix       = ".table"
	logSuffix         = ".log"

	// DamagedSuffix follows the name of a file that was set aside.
	DamagedSuffix = ".damaged"
)

// TableName gives the base name of a table file.
func TableName(number uint64) string { return fmt.Sprintf("%08d%s", number, tableSuffix) }

// LogName gives the base name of a segment of the commit log.
func LogName(number uint64) string { return fmt.Sprintf("%08d%s", number, logSuffix) }

// ParseTableName gives the number in a name made by TableName.
func ParseTableName(name string) (number uint64, ok bool) { return parse(name, tableSuffix, TableName) }

// ParseLogName gives the number in a name made by LogName.
func ParseLogName(name string) (number uint64, ok bool) { return parse(name, logSuffix, LogName) }

func parse(name, suffix string, format func(uint64) string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && format(n) == name // the one spelling only
}
