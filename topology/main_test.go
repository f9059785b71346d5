package topology

import "os"

// torture runs the long versions of the tests.
var torture = os.Getenv("KVSTORE_TORTURE") == "1"
