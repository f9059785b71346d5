// Package cart is a shopping cart whose items survive a network that is cut in two:
// both sides go on, and what they added comes together when the network heals.
//
// A cart is its lines, sorted. Two carts merge to the union of their lines; a line
// that is taken out is marked, or the other side would bring it back.
package cart

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"example.com/kvstore"
)

// Options are those of a node that keeps carts: one owner's word is enough, so that
// both sides of a cut go on, and what they wrote is merged.
var Options = kvstore.Options{Read: kvstore.One, Write: kvstore.One, Conflicts: kvstore.MergeFunc(Merge)}

// Merge is the union of two carts.
func Merge(a, b []byte) []byte {
	lines := append(bytes.Split(a, []byte("\n")), bytes.Split(b, []byte("\n"))...)
	slices.SortFunc(lines, bytes.Compare)
	return bytes.TrimLeft(bytes.Join(slices.CompactFunc(lines, bytes.Equal), []byte("\n")), "\n")
}

// Add puts a line into a cart.
func Add(ctx context.Context, db *kvstore.DB, cart, line string) error {
	_, err := db.Update(ctx, cart, func(it kvstore.Item) ([]byte, error) { return Merge(it.Value, []byte(line)), nil })
	return err
}

// Remove takes a line out of a cart, for good.
func Remove(ctx context.Context, db *kvstore.DB, cart, line string) error {
	return Add(ctx, db, cart, "-"+line)
}

// Lines gives what is in a cart, as far as the owners that level asks know.
func Lines(ctx context.Context, db *kvstore.DB, cart string, level kvstore.Consistency) ([]string, error) {
	it, err := db.Get(ctx, cart, level)
	if errors.Is(err, kvstore.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	all := strings.Split(string(it.Value), "\n")
	return slices.DeleteFunc(slices.Clone(all), func(l string) bool { return strings.HasPrefix(l, "-") || slices.Contains(all, "-"+l) }), nil
}
