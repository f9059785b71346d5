package manifest

import (
	"bytes"
	"fmt"
	"path"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/vfs"
)

// A checkpoint file is a manifest that is written once, as one frame and its
// seal, under a magic and a name of its own: it says which files belong to a copy
// of a directory, with size and hash of each.

// AppendCheckpoint appends the content of the checkpoint file of a state.
func AppendCheckpoint(dst []byte, s *State) []byte {
	b, _ := appendSnapshot(dst, base.CheckpointMagic, 1, s)
	return b
}

// ReadCheckpoint reads the checkpoint file of a directory. Without one the error
// satisfies errors.Is(err, fs.ErrNotExist); one that is not whole is a
// *base.CorruptError.
func ReadCheckpoint(fs vfs.FS, dir string) (*State, error) {
	f, err := fs.Open(path.Join(dir, base.CheckpointName))
	if err != nil {
		return nil, fmt.Errorf("manifest: open the checkpoint: %w", err)
	}
	defer f.Close()
	b, err := readAll(f, base.CheckpointName)
	if err != nil {
		return nil, err
	}
	return decodeCheckpoint(b)
}

// decodeCheckpoint reads the content of a checkpoint file.
func decodeCheckpoint(b []byte) (*State, error) {
	d, _, err := decodeAs(b, base.CheckpointMagic, base.CheckpointName)
	if err != nil {
		return nil, err
	}
	s := d.publish()
	if !bytes.Equal(b, AppendCheckpoint(nil, s)) {
		return nil, base.Corrupt(base.CheckpointName, base.HeaderBytes, "one frame with its seal", "something else")
	}
	return s, nil
}

// CreateFrom is Create with a state to begin with.
func CreateFrom(fs vfs.FS, dir string, s *State) (*Manifest, error) {
	p, e, err := decodeEdit(s.append(nil))
	if err != nil {
		return nil, err
	}
	m := &Manifest{fs: fs, dir: dir, draft: newDraft(*p)}
	if err := m.draft.check(e); err != nil {
		return nil, err
	}
	m.draft.apply(e)
	m.state.Store(m.draft.publish())
	if err := m.rewrite(); err != nil {
		return nil, err
	}
	return m, nil
}
