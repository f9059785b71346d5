package kvstore

import "fmt"

// needExchange notes, durably, that this node has to compare these partitions
// with their other owners.
func (db *DB) needExchange(partitions []uint32) error {
	db.needs <- struct{}{}
	defer func() { <-db.needs }()
	var settings []setting
	for _, p := range partitions {
		settings = append(settings, number(fmt.Sprintf("%s%05d", sysExchange, p), db.view.Load().epoch.Number))
	}
	return db.sys.set(settings...)
}
