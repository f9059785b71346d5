package table

// maxActors bounds the dictionary of a table. Actors beyond it are stored in
// the records themselves.
const maxActors = 1 << 16

// dictionary numbers the actors of a table in order of appearance.
type dictionary struct {
	actors []uint64
	byID   map[uint64]uint64
}

// index gives the number of an actor; false when the dictionary is full and
// does not have it.
func (d *dictionary) index(actor uint64) (uint64, bool) {
	if len(d.actors) > 0 && d.actors[0] == actor {
		return 0, true
	}
	i, ok := d.byID[actor]
	switch {
	case ok:
		return i, true
	case len(d.actors) == maxActors:
		return 0, false
	case d.byID == nil:
		d.byID = make(map[uint64]uint64)
	}
	i = uint64(len(d.actors))
	d.actors = append(d.actors, actor)
	d.byID[actor] = i
	return i, true
}
