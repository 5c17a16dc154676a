package explore

// Parse is what reads a request.
var Parse = parse
