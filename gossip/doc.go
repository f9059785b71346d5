// Package gossip spreads liveness and small news among the members of a cluster:
// heartbeats, failure detection and opaque metadata. It is a state machine
// without I/O, clock, goroutine or global randomness: the caller hands in the
// time, messages and a seed, and delivers what comes out. It decides nothing
// about data or ownership; what it says about a member is an opinion.
//
//	g := gossip.New(gossip.Config{ID: "a", Addr: addr, Incarnation: boot, Seeds: seeds, Seed: seed})
//	for {
//		select {
//		case <-timer.C:
//			send(g.Tick(now()))
//		case msg := <-received:
//			send(g.Step(now(), msg))
//		}
//		timer.Reset(g.Next().Sub(now()))
//		publish(g.Changes())
//	}
//
// # Protocol
//
// Each member counts its own rounds: its heartbeat, within an incarnation that
// grows at every start. Once per Interval it sends a digest, lines of (id, incarnation,
// heartbeat, state), to the next member of a shuffled list, and a shorter one to a
// random member; now and then to a dead member and to a seed, so that healed
// partitions meet. Digests are bounded: news first, then the table in turn.
//
//	A                         B
//	| -- ping: digest ------> |   B keeps the newer lines, and answers
//	| <- ack: what A lacks, - |   with what is newer and what it wants:
//	|    what B wants         |   addresses and meta travel on demand only
//	| -- delta: wanted -----> |
//
// A ping is also a probe (SWIM; Das, Gupta, Motivala 2002). Unanswered for half
// an Interval it goes through three helpers too, and on like this every round:
//
//	A -- ask about M --> H -- ping --> M
//	A <-- vouch for M -- H <-- ack --- M
//
//	            unanswered for SuspectAfter         unrefuted for SuspectAfter * max(1, log10 n)
//	  +-------+ ---------------------> +---------+ ---------------------> +------+
//	  | alive |                        | suspect |                        | dead |
//	  +-------+ <--------------------- +---------+                        +------+
//	      ^       newer heartbeat or                                          |
//	      |       incarnation                                                 |
//	      +-------------------------------------------------------------------+
//	        newer heartbeat (it was cut off) or incarnation (it restarted)
//
// Invariant: news about a member is ordered by (incarnation, heartbeat, state),
// and the greater wins. So an accusation is bound to the heartbeat it was made at, a
// later heartbeat refutes it by itself, and a node that hears nothing accuses
// with old heartbeats that nobody believes. Only a member raises its own
// incarnation; it does so when it meets anything above its own version.
//
// A node that has reason to doubt itself waits up to four times longer
// (Lifeguard; Dadgar, Phillips, Currey 2017), and time in which it did not run,
// or by which the clock jumped, does not count against the others.
//
// Dead members are remembered until Forget, and greeted now and then.
//
// # Bounds
//
// Messages are refused whole when malformed or above 64 KiB; counters that leap
// are not believed from third parties, but asked for in person; an answer to
// one's own probe is believed. There are at most MaxMembers members. A liar
// that may speak can thus cause false suspicions, but not keep them up: when
// it stops, all are well again in seconds. Keep the door shut all the same: peers are
// authenticated by the transport, and gossip believes their names.
//
// # Figures
//
// Simulated, 1 s Interval, 5 s SuspectAfter, delays of 0.5 to 5 ms, ids of 9 bytes:
//
//	members   news everywhere   sent per node    crash: suspect   dead everywhere
//	     10        1.1 rounds         790 B/s             5.5 s            11.1 s
//	    100        2.7 rounds       2,130 B/s             6.5 s            17.9 s
//	  1,000        3.5 rounds       1,620 B/s             5.4 s            26.8 s
//
// (The crash among 1,000 was at 10 % loss, with heartbeats up to half a minute
// old: each node took back one early suspicion first.) At 10 % loss: 100 members
// for an hour, and 1,000 (KVSTORE_TORTURE), no suspicion and no death; news to 100 in 2.6 rounds, to 1,000 in
// 4. 100 members from one seed know each other after 4 s; both sides of a healed
// partition of 40 after 1.3 s.
package gossip
