package kvstore

import (
	"fmt"
	"strings"
	"sync/atomic"

	"example.com/kvstore/lsm"
	"example.com/kvstore/transport"
)

// counters are what a node counts as it works.
type counters struct {
	gets, failedGets            atomic.Uint64
	puts, deletes, failedWrites atomic.Uint64
	restamps, writeBacks        atomic.Uint64
	spareReads                  atomic.Uint64
	servedReads, servedWrites   atomic.Uint64
	servedRecords               atomic.Uint64
	hintsKept, hintsDelivered   atomic.Uint64
	hintsCounted                atomic.Uint64
	hintsRefused, hintsDropped  atomic.Uint64
	forwards, forwarded         atomic.Uint64
	updates, reruns             atomic.Uint64
	servedBatches               atomic.Uint64
	servedDigests, digestMisses atomic.Uint64
	expired                     atomic.Uint64

	exchanges, failedExchanges       atomic.Uint64
	exchangeBytes, exchangeTokens    atomic.Uint64
	exchangedSent, exchangedReceived atomic.Uint64
	rounds, failedRounds, rereads    atomic.Uint64
	damages, healed                  atomic.Uint64
}

// exchanged counts an exchange.
func (c *counters) exchanged(r *exchangeResult, err error) {
	c.exchanges.Add(1)
	if err != nil {
		c.failedExchanges.Add(1)
	}
	c.exchangeBytes.Add(uint64(r.bytes))
	c.exchangeTokens.Add(uint64(r.tokens))
	c.exchangedSent.Add(uint64(r.sent))
	c.exchangedReceived.Add(uint64(r.received))
}

// Metrics is a snapshot of what a node did since it was opened.
type Metrics struct {
	// Calls on this DB, failed ones included.
	Gets, Puts, Deletes, Updates uint64
	// FailedGets are without ErrNotFound.
	FailedGets, FailedWrites uint64
	// Restamps: a write found a newer one and was sent again above it.
	Restamps uint64
	// WriteBacks: a read found its owners different and repaired them.
	WriteBacks uint64
	// SpareReads: a read asked one more owner because the first were slow.
	SpareReads uint64
	// Reruns: an Update found other values beside what it wrote, or would have,
	// and ran its function again.
	Reruns uint64
	// Forwards: a causal write was handed to an owner of its key.
	Forwards uint64
	// ServedReads, ServedWrites and ServedForwards were asked for by other
	// coordinators.
	ServedReads, ServedWrites, ServedForwards uint64
	// ServedDigests were answered in place of large values; DigestMisses: they did
	// not agree, so that the key was read again.
	ServedDigests, DigestMisses uint64
	// ServedBatches are messages of others that read or wrote several keys.
	ServedBatches uint64
	// Expired were not begun when their turn came: nobody waited for them any more.
	Expired uint64
	// ServedRecords came in batches: hints, and what exchanges found missing.
	ServedRecords uint64
	// HintsKept were stored for nodes that missed a write, HintsDelivered have
	// reached them; HintsRefused came too late to matter, or the node will never
	// take them. HintsDropped could not be stored.
	HintsKept, HintsDelivered, HintsRefused, HintsDropped uint64
	// HintsCounted are those that this node kept in the place of an owner, for a Sloppy
	// write.
	HintsCounted uint64
	// Exchanges are comparisons with other owners that this node asked for, and
	// FailedExchanges those of them that were not finished. Their messages had
	// ExchangeBytes; they found ExchangeTokens tokens different, and brought
	// ExchangedSent records to others and ExchangedReceived here.
	Exchanges, FailedExchanges, ExchangeBytes, ExchangeTokens, ExchangedSent, ExchangedReceived uint64
	// Rounds raised the horizon of some of this node's partitions; FailedRounds were
	// driven by this node and came to nothing. Rereads were needed for records that
	// came late.
	Rounds, FailedRounds, Rereads uint64
	// NeedExchange are partitions of which this node has to compare its copy.
	NeedExchange int
	// Damages is how often data of this node was found to be lost. Of Incomplete
	// partitions some is still; Healed came back from the other owners.
	Damages, Healed uint64
	Incomplete      int
	// PendingHints are stored now, for other nodes, in PendingHintBytes.
	PendingHints     int
	PendingHintBytes int64

	Engine    lsm.Metrics
	Transport transport.Metrics
}

// Metrics gives a snapshot. After Close it is the last one.
func (db *DB) Metrics() Metrics {
	c := &db.metrics
	m := Metrics{
		Gets: c.gets.Load(), Puts: c.puts.Load(), Deletes: c.deletes.Load(),
		FailedGets: c.failedGets.Load(), FailedWrites: c.failedWrites.Load(),
		Restamps: c.restamps.Load(), WriteBacks: c.writeBacks.Load(), SpareReads: c.spareReads.Load(),
		ServedReads: c.servedReads.Load(), ServedWrites: c.servedWrites.Load(), ServedRecords: c.servedRecords.Load(),
		HintsKept: c.hintsKept.Load(), HintsDelivered: c.hintsDelivered.Load(), HintsRefused: c.hintsRefused.Load(), HintsDropped: c.hintsDropped.Load(),
		HintsCounted: c.hintsCounted.Load(),
		Updates:      c.updates.Load(), Reruns: c.reruns.Load(), Forwards: c.forwards.Load(), ServedForwards: c.forwarded.Load(), ServedBatches: c.servedBatches.Load(),
		ServedDigests: c.servedDigests.Load(), DigestMisses: c.digestMisses.Load(), Expired: c.expired.Load(),
		Engine: db.tree.Metrics(),
	}
	m.Exchanges, m.FailedExchanges, m.ExchangeBytes = c.exchanges.Load(), c.failedExchanges.Load(), c.exchangeBytes.Load()
	m.ExchangeTokens, m.ExchangedSent, m.ExchangedReceived = c.exchangeTokens.Load(), c.exchangedSent.Load(), c.exchangedReceived.Load()
	m.Rounds, m.FailedRounds, m.Rereads = c.rounds.Load(), c.failedRounds.Load(), c.rereads.Load()
	m.NeedExchange = db.exchanges.waiting()
	m.Damages, m.Healed = c.damages.Load(), c.healed.Load()
	if v := db.view.Load(); v != nil {
		for _, lost := range db.damage.incomplete(v) {
			if lost {
				m.Incomplete++
			}
		}
	}
	for _, h := range *db.hints.pending.Load() {
		m.PendingHints += h.Hints
		m.PendingHintBytes += h.Bytes
	}
	if db.mux != nil {
		m.Transport = db.mux.Metrics()
	}
	return m
}

// String is a table.
func (m Metrics) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "calls      %12s %12s %12s %12s\n", "get", "put", "delete", "update")
	fmt.Fprintf(&b, "  made     %12d %12d %12d %12d\n", m.Gets, m.Puts, m.Deletes, m.Updates)
	fmt.Fprintf(&b, "  failed   %12d %12d\n", m.FailedGets, m.FailedWrites)
	fmt.Fprintf(&b, "  served   %12d %12d\n", m.ServedReads, m.ServedWrites)
	fmt.Fprintf(&b, "  restamps %d, write-backs %d, spare reads %d, reruns %d, forwarded %d, for others %d, expired %d\n",
		m.Restamps, m.WriteBacks, m.SpareReads, m.Reruns, m.Forwards, m.ServedForwards, m.Expired)
	fmt.Fprintf(&b, "  hints    %d kept, %d delivered, %d refused, %d dropped, %d pending with %d bytes\n",
		m.HintsKept, m.HintsDelivered, m.HintsRefused, m.HintsDropped, m.PendingHints, m.PendingHintBytes)
	fmt.Fprintf(&b, "  exchanges %d (%d failed), %d bytes, %d tokens differed, %d records sent, %d received, %d partitions in need\n",
		m.Exchanges, m.FailedExchanges, m.ExchangeBytes, m.ExchangeTokens, m.ExchangedSent, m.ExchangedReceived, m.NeedExchange)
	fmt.Fprintf(&b, "  rounds   %d (%d failed), %d re-reads\n", m.Rounds, m.FailedRounds, m.Rereads)
	fmt.Fprintf(&b, "  damages  %d, %d partitions healed, %d incomplete\n", m.Damages, m.Healed, m.Incomplete)
	b.WriteString(m.Engine.String())
	b.WriteString(m.Transport.String())
	return b.String()
}
