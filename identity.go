package kvstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"slices"

	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/topology"
)

// identityName is the file with a second copy of what a node cannot do without: who it
// is, and which epochs it knows. The first one, in the engine, counts unless it was lost with
// a damaged file, or with the whole engine. Described in lsm/FORMAT.md.
const identityName = "identity"

const identityMagic = "kvi1"

// A kept is what the file says.
type kept struct {
	cluster, id string
	uid         uint64
	chain       []*topology.Epoch
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// append encodes it.
//
//	"kvi1" | cluster length 1 | cluster | id length 1 | id | uid 8 | epochs 4 | (length 4 | epoch)* | CRC32C of all before
func (k *kept) append(dst []byte) ([]byte, error) {
	dst = append(dst, identityMagic...)
	for _, s := range []string{k.cluster, k.id} {
		dst = append(append(dst, byte(len(s))), s...)
	}
	dst = binary.LittleEndian.AppendUint64(dst, k.uid)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(k.chain)))
	for _, e := range k.chain {
		b, err := e.AppendBinary(nil)
		if err != nil {
			return nil, err
		}
		dst = append(binary.LittleEndian.AppendUint32(dst, uint32(len(b))), b...)
	}
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst, castagnoli)), nil
}

var errIdentity = fmt.Errorf("%w: the file %s", ErrCorrupt, identityName)

// decodeKept decodes what append made.
func decodeKept(b []byte) (k kept, err error) {
	if len(b) < len(identityMagic)+4 || string(b[:len(identityMagic)]) != identityMagic {
		return kept{}, errIdentity
	}
	sum := len(b) - 4
	if crc32.Checksum(b[:sum], castagnoli) != binary.LittleEndian.Uint32(b[sum:]) {
		return kept{}, errIdentity
	}
	b = b[len(identityMagic):sum]
	cut := func(n int) []byte {
		if n < 0 || n > len(b) {
			b, err = nil, errIdentity
			return make([]byte, 8)
		}
		head := b[:n]
		b = b[n:]
		return head
	}
	k.cluster = string(cut(int(cut(1)[0])))
	k.id = string(cut(int(cut(1)[0])))
	k.uid = binary.LittleEndian.Uint64(cut(8))
	for n := binary.LittleEndian.Uint32(cut(4)); n > 0 && err == nil; n-- {
		epoch := cut(int(binary.LittleEndian.Uint32(cut(4))))
		if err != nil {
			break
		}
		e, bad := topology.DecodeEpoch(epoch)
		if bad != nil {
			return kept{}, fmt.Errorf("%w: %w", errIdentity, bad)
		}
		k.chain = append(k.chain, e)
	}
	if err != nil || len(b) > 0 {
		return kept{}, errIdentity
	}
	return k, nil
}

// dataDir is where the engine is.
func (db *DB) dataDir() string { return path.Join(db.dir, "data") }

// vacant reports whether there is no engine yet.
func (db *DB) vacant() (bool, error) {
	names, err := db.opts.FS.List(db.dataDir())
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return !slices.Contains(names, "manifest"), err
}

// inheritIdentity is for a directory without an engine. When the file is there the engine has
// been there too: its data must come from the other owners, or somebody has to know.
func (db *DB) inheritIdentity() error {
	name, seeds := path.Join(db.dir, identityName), len(db.opts.Seeds) > 0
	b, err := readFile(db.opts.FS, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var k kept
	if err == nil {
		k, err = decodeKept(b)
	}
	if err != nil && !seeds {
		return fmt.Errorf("%w: %s is empty, and %s, which says whose data was there, cannot be read; put the data back (is the volume mounted?), or remove that file to start anew: %w", ErrCorrupt, db.dataDir(), name, err)
	}
	if err != nil || len(k.chain) == 0 || db.opts.NodeID != "" && db.opts.NodeID != k.id {
		return nil
	}
	if k.cluster != db.opts.Cluster {
		return fmt.Errorf("%w: %s says that this directory belongs to cluster %q, Options.Cluster is %q; use another directory", ErrIncompatible, name, k.cluster, db.opts.Cluster)
	}
	r := k.chain[len(k.chain)-1].Ring
	switch members := len(r.Nodes()); {
	case members <= 1 || r.N() <= 1:
		return fmt.Errorf("%w: %s is empty, but %s says that node %q had its data there, and no other has a copy; put it back (is the volume mounted?), or remove that file to start anew", ErrCorrupt, db.dataDir(), name, k.id)
	case !seeds:
		return fmt.Errorf("%w: %s is empty, but %s says that node %q of %d had its data there; put it back (is the volume mounted?), or name the others in Options.Seeds to get it from them", ErrCorrupt, db.dataDir(), name, k.id, members)
	}
	db.opts.NodeID, db.opts.Bootstrap = k.id, false
	db.opts.Logger.Warn("kvstore: the data of this node is gone, the other members have to bring it back", "directory", db.dataDir(), "node", k.id)
	return nil
}

// keepIdentity writes the file anew if it does not say all that is known. Before the node is
// a member that is nothing.
func (db *DB) keepIdentity(chain []*topology.Epoch) error {
	if len(chain) == 0 {
		return nil
	}
	k := kept{cluster: db.opts.Cluster, id: db.id, uid: db.uid, chain: chain}
	text, err := k.append(nil)
	if err != nil {
		return err
	}
	name := path.Join(db.dir, identityName)
	if old, err := readFile(db.opts.FS, name); err == nil {
		if string(old) == string(text) {
			return nil
		}
		if _, err := decodeKept(old); err != nil {
			db.opts.Logger.Warn("kvstore: a damaged file is written anew; what it held is known", "error", err, "file", name)
		}
	}
	f, err := db.opts.FS.Create(name + ".tmp")
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(text, 0); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := db.opts.FS.Rename(name+".tmp", name); err != nil {
		return err
	}
	return db.opts.FS.SyncDir(db.dir)
}

// readIdentity reads the file.
func (db *DB) readIdentity() (kept, error) {
	b, err := readFile(db.opts.FS, path.Join(db.dir, identityName))
	if errors.Is(err, fs.ErrNotExist) {
		return kept{}, fmt.Errorf("%w is not there", errIdentity)
	}
	if err != nil {
		return kept{}, err
	}
	return decodeKept(b)
}

// readFile reads a small file.
func readFile(fsys vfs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}
