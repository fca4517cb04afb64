package subscriber;

/** A value that does not match its schema in the registry. Retries do not help. */
final class UndecodableException extends Exception {
    UndecodableException(String message) {
        super(message);
    }

    UndecodableException(Exception cause) {
        super(cause);
    }
}
